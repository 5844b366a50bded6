"""Common English words of one to three syllables, from which confusable words are chosen."""

_TEXT = """
able about above accept across action actor add afraid after again age ago agree air alarm album
alive alone along always amber angel anger angry animal answer apple april area arm army around
arrive art ask autumn aunt away baby back bacon bad bag ball banana band bank bar base basket
battle beach bean bear beauty bed bee before begin behind bell below bench berry best better
bicycle big bird birthday bite black blanket blood blow blue board boat body bone book boot born
bottle bottom bowl box boy brain branch brave bread break breakfast bridge bright bring broken
brother brown brush bubble bucket build bus busy butter button buy cabin cable cake call camera
camp candle captain car carbon card carpet carry castle cat catch cause ceiling center certain
chain chair chance change chapter cheap check cheese cherry chicken child choose church circle
city class clean clear clever climb clock close cloth cloud coat coffee coin cold collar color
come common compass compete complete compose compute concert consider contain continue cook
cookie cool copper copy corner correct cost cotton count country couple cousin cover cow crazy
cream cross crowd cry culture cup curtain custom cut dance danger dark daughter day dead dear
december decide deep deliver desk detail diamond dinner dirty doctor dog dollar door double
doubt dozen dragon draw dream dress drink drive drop dry duck dust each eager eagle ear early
earth east easy eat edge egg eight elbow eleven empty end engine enough enter evening ever every
example excuse eye face fact fair faith fall family famous far farm fast father favor fear
february feed feel fence fever few field fifteen fight figure fill find finger finish fire first
fish five flag flame flat floor flour flower fly follow food foot force forest forget fork
forward found four fox free fresh friday friend frog front fruit full funny future game garden
gate gather gentle giant gift girl give glad glass glove goat gold golden good goose grain grand
grandma grape grass gray great green ground group grow guard guess guest guitar hair half hall
hammer hand handle happen happy harbor hard harvest hat hear heart heavy hello help herself
hidden high hill himself history hit hold hole holiday home honey hope horse hospital hot hotel
hour house human hundred hungry hunter hurry husband ice idea important inch indoor insect
inside iron island jacket january jelly join joke journey judge juice july jump june jungle
kettle key kick kind king kitchen kite kitten knee knife knock ladder lady lake lamp land
language large last later laugh law lazy lead leaf learn least leather leave lemon less lesson
let letter level library life lift light like line lion lip list listen little live local
london long look loose lose loud love low lucky lunch machine magic main make man many map
march market marry marvel master match matter may maybe meal mean measure meat medal meet melon
member memory message metal middle midnight mile milk million mind minute mirror miss mix model
moment monday money monkey month moon more morning most mother mountain mouse mouth move much
music must nail name narrow nature near neck need needle never new news next nice night nine
noise none noon north nose note nothing notice november now number nurse nut ocean october offer
office often oil old once one onion only open orange order other outside oven over own page
paint pair paper parent park part party pass path pay peace pencil people pepper perfect perhaps
person picnic picture piece pillow pilot pink pipe place plain planet plant plate play pocket
poem point police polite pond pony pool poor popular port possible post pot potato pound power
practice present press pretty prize problem promise proud public pull pumpkin puppy purple purse
push puzzle queen question quick quiet rabbit race radio railway rain raise reach read ready
real reason record red remember repeat reply report rest rice rich ride ring rise river road
robin rock roof room root rope rose round row rubber rude rule run sad safe sail salad salt same
sand sandwich saturday save say school science scissors score sea search season seat second
secret see seem sell send sense september serve set seven shade shake shape share sharp sheep
sheet shelf shine ship shirt shoe shop short should shoulder shout show shower sick side sign
signal silent silver simple since sing singer single sink sister sit six size skin sky sleep
slow small smart smell smile smoke smooth snake snow soap soccer soft soldier some son song soon
sorry sound soup south space spare speak special speed spell spend spoon sport spot spring
square stage stair stamp stand star start station stay steal steam steel step stick still stone
stool store storm story straight strange street strong student study such sudden sugar suit
summer sun sunday supper sure surface surprise sweet swim table tail take talk tall tape taste
taxi tea teach teacher team tell temple ten tennis tent test than thank that there thick thin
thing think third thirsty this thousand three throat throw thunder thursday ticket tidy tie
tiger time tiny tired title toast today toe together tomato tomorrow tongue tonight tooth top
total touch towel tower town toy traffic train travel treat tree triangle trip trouble trousers
truck true trust truth try tuesday tunnel turkey turn turtle twelve twenty two ugly uncle under
until upon upset use usual valley very video view village violin visit voice vote wagon wait
walk wall want warm wash watch water wave way wear weather wednesday week weight welcome well
west wet whale wheat wheel where which while white whole wide wife wild win wind window wing
winter wire wise wish wolf woman wonder wood wool word work world worry wrong yard year yellow
yesterday yet young zebra zero
"""
COMMON_WORDS = tuple(_TEXT.split())
