"""An HTTP server on port 8080 of both stacks that names its host and the client, as the customer's demo pod does."""
import http.server
import json
import socket
import sys


class Backend(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = {"pod_name": "metallb-demo", "host_name": sys.argv[1], "client_ip": self.client_address[0]}
        body = json.dumps(answer).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


Server(("::", 8080), Backend).serve_forever()
