// The function: it answers with the event that it was given.

export const handler = async (event, context) => event;
