"""How the memory of a stream is shared by what is not needed at the same time."""

from earmark.runtime.backends.native_template import packed
from hypothesis import given
from hypothesis import strategies as st

blocks = st.lists(
    st.tuples(st.integers(0, 50).map(lambda lines: 64 * lines), *[st.integers(0, 20)] * 2),
    max_size=30,
)


@given(blocks)
def test_blocks_that_are_needed_at_the_same_time_lie_apart(blocks: list[tuple[int, int, int]]):
    sizes, first, last = (list(each) for each in zip(*blocks, strict=True)) if blocks else ([],) * 3
    starts, whole = packed(sizes, first, last)
    needed = [place for place in range(len(blocks)) if sizes[place] and first[place] <= last[place]]
    for one in needed:
        assert 0 <= starts[one] <= whole - sizes[one]
        for other in needed:
            apart = starts[one] + sizes[one] <= starts[other]
            apart = apart or starts[other] + sizes[other] <= starts[one]
            together = first[one] <= last[other] and first[other] <= last[one]
            assert one == other or apart or not together
    busiest = [
        sum(sizes[place] for place in needed if first[place] <= time <= last[place])
        for time in range(21)
    ]
    assert max(busiest) <= whole <= sum(sizes)


def test_a_chain_takes_as_much_as_two_links() -> None:
    """Each is computed from the one before it."""
    starts, whole = packed([64] * 10, range(10), range(1, 11))
    assert whole == 128 and set(starts) == {0, 64}
