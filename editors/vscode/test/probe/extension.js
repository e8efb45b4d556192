// Evaluates the code that the tests send over the socket $PROBE, with `vscode` in scope.
const http = require('node:http');
const vscode = require('vscode');

exports.activate = () => {
  const server = http.createServer(async (request, response) => {
    let code = '';
    for await (const part of request) code += part;
    try {
      const value = await new Function('vscode', `return (async () => { ${code} })()`)(vscode);
      response.end(JSON.stringify({ value: value ?? null }));
    } catch (error) {
      response.end(JSON.stringify({ error: String(error.stack ?? error) }));
    }
  });
  // The first window owns the socket; a second one is driven by keys alone.
  server.on('error', () => {});
  server.listen(process.env.PROBE);
  return { dispose: () => server.close() };
};
