// The one thing of Node's that client.ts uses.
declare const process: { argv: string[] };
