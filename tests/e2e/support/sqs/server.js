// The SQS emulator on loopback: node server.js PORT FAULTS
//
// FAULTS is a file of JSON that is read when it changes: a list of {action, contains, status, code,
// message, headers, times, delay, failOne}. The first that fits a request is what it gets; with
// `failOne` the request is served, and its first entry comes back as failed with that code.
const fs = require("fs");
const http = require("http");
const path = require("path");
const { createRequestHandler } = require(path.join(process.env.SQS_MODULES, "local-aws-sqs"));

const [port, faultsPath] = process.argv.slice(2);
const { requestHandler } = createRequestHandler({
  port: Number(port), hostname: "127.0.0.1", region: "eu-west-1",
  emulateQueueCreationLifecycle: false,
});
let seen = "";
let faults = [];

function readFaults() {
  let text = "[]";
  try { text = fs.readFileSync(faultsPath, "utf8"); } catch {}
  if (text !== seen) { seen = text; faults = JSON.parse(text); }
}

function faultFor(action, body, request) {
  readFaults();
  return faults.find((fault) => {
    if (fault.action && fault.action !== action) return false;
    if (fault.contains && !body.includes(fault.contains)) return false;
    if (fault.unlessHeader && String(request.headers[fault.unlessHeader[0]] || "")
        .includes(fault.unlessHeader[1])) return false;
    if (fault.times !== undefined && fault.times-- <= 0) return false;
    return true;
  });
}

function failOne(fault, request, response) {
  const end = response.end.bind(response);
  const parsed = JSON.parse(request.relayBody);
  const victim = parsed.Entries[0].Id;
  parsed.Entries = parsed.Entries.slice(1);
  const failed = { Id: victim, Code: fault.code, Message: fault.message || "", SenderFault: !!fault.senderFault };
  if (parsed.Entries.length === 0) {
    response.writeHead(200, { "content-type": "application/x-amz-json-1.0" });
    end(JSON.stringify({ Successful: [], Failed: [failed] }));
    return null;
  }
  response.end = (text) => {
    const answer = JSON.parse(text);
    answer.Failed = [...(answer.Failed || []), failed];
    response.removeHeader("content-length");
    end(JSON.stringify(answer));
  };
  return JSON.stringify(parsed);
}

http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    let body = Buffer.concat(parts).toString();
    request.relayBody = body;
    const action = String(request.headers["x-amz-target"] || "").split(".")[1] || "";
    const fault = action ? faultFor(action, body, request) : undefined;
    const serve = () => {
      if (fault && fault.failOne) body = failOne(fault, request, response);
      if (body === null) return;
      if (fault && fault.status) {
        response.writeHead(fault.status, { "content-type": "application/x-amz-json-1.0",
                                           ...(fault.headers || {}) });
        response.end(JSON.stringify({ __type: `com.amazonaws.sqs#${fault.code}`,
                                      message: fault.message || "" }));
        return;
      }
      // The emulator reads a stream.
      const again = new (require("stream").PassThrough)();
      again.headers = request.headers;
      again.method = request.method;
      again.url = request.url;
      requestHandler(again, response);
      again.end(body);
    };
    if (fault && fault.delay) setTimeout(serve, fault.delay); else serve();
  });
}).listen(Number(port), "127.0.0.1");
