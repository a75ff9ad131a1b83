"""A door before an SQS server: passes requests of the JSON protocol on, or answers them itself with
an error of the service.

A fault is a dict. Which requests it fits: `action` (SendMessageBatch ...), `contains` (a text of the
body), `unlessHeader` (a header's name and a text: those without it), `times` (so many requests). What
they get: `status` with `code` and `message`; or with `failOne` their first entry comes back as failed
with `code` and `senderFault`, and the others are served; or with `attributes` the server's answer
tells these attributes of the queue, too; or with `largest` a request is served unless an entry is
larger than so many bytes, as a queue with that MaximumMessageSize does it. The first fault that fits
is taken.
"""

import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_TYPE = "application/x-amz-json-1.0"


def _size(entry):
    """What SQS counts of an entry: its body, and names, types and values of its attributes."""
    return len(entry["MessageBody"].encode()) + sum(
        len((name + value["DataType"] + value["StringValue"]).encode())
        for name, value in entry.get("MessageAttributes", {}).items())


class FaultyDoor:
    def __init__(self, server_port):
        self.faults = []
        self.requests = []  # of faults with `largest`: the sizes of each request's entries
        self._lock = threading.Lock()
        door = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fault = door.fault_for(self.headers, body.decode())
                if fault and "attributes" in fault:
                    status, answer = self._add_attributes(fault["attributes"], body)
                elif fault and "largest" in fault:
                    status, answer = self._limit_size(fault["largest"], body)
                elif fault and fault.get("failOne"):
                    status, answer = self._fail_one(fault, json.loads(body))
                elif fault:
                    status, answer = fault["status"], json.dumps(
                        {"__type": f"com.amazonaws.sqs#{fault['code']}",
                         "message": fault.get("message", "")}).encode()
                else:
                    status, answer = self._pass_on(body)
                self.send_response(status)
                self.send_header("Content-Type", _TYPE)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def _pass_on(self, body):
                connection = http.client.HTTPConnection("127.0.0.1", server_port, timeout=30)
                headers = {name: text for name, text in self.headers.items()
                           if name.lower() not in ("connection", "content-length")}
                try:
                    connection.request("POST", self.path, body, headers)
                    response = connection.getresponse()
                    return response.status, response.read()
                finally:
                    connection.close()

            def _add_attributes(self, attributes, body):
                status, text = self._pass_on(body)
                answer = json.loads(text)
                answer["Attributes"] = {**answer.get("Attributes", {}), **attributes}
                return status, json.dumps(answer).encode()

            def _limit_size(self, largest, body):
                sizes = [_size(entry) for entry in json.loads(body)["Entries"]]
                door.requests.append(sizes)
                if max(sizes) <= largest:
                    return self._pass_on(body)
                return 400, json.dumps({
                    "__type": "com.amazonaws.sqs#InvalidParameterValue",
                    "message": f"One or more parameters are invalid. Reason: Message must be shorter "
                               f"than {largest} bytes."}).encode()

            def _fail_one(self, fault, request):
                victim = request["Entries"].pop(0)["Id"]
                status, answer = 200, {}
                if request["Entries"]:
                    status, text = self._pass_on(json.dumps(request).encode())
                    answer = json.loads(text)
                answer["Failed"] = [*answer.get("Failed", []), {
                    "Id": victim, "Code": fault["code"], "Message": fault.get("message", ""),
                    "SenderFault": fault.get("senderFault", False)}]
                return status, json.dumps({"Successful": [], **answer}).encode()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def fault_for(self, headers, body):
        action = headers.get("X-Amz-Target", "").partition(".")[2]
        with self._lock:
            for fault in self.faults:
                name, text = fault.get("unlessHeader", ("", None))
                if (fault.get("action", action) != action or fault.get("contains", "") not in body
                        or (text and text in headers.get(name, "")) or fault.get("times") == 0):
                    continue
                if "times" in fault:
                    fault["times"] -= 1
                return fault
        return None

    def close(self):
        self._server.shutdown()
        self._server.server_close()
