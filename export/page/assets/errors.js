/** A problem that the person at the page can put right; its message is shown as it is. */
export class UserError extends Error {}
