"""A program of others: asks the model once, and pulls the lever if the answer begins low enough."""

import json
import os
import sys
import urllib.request

what = sys.argv[2] if len(sys.argv) > 2 else ""
body = {"messages": [{"role": "user", "content": "pull?"}], "model": "policy"}
request = urllib.request.Request(
    os.environ["OPENAI_BASE_URL"] + "/chat/completions",
    json.dumps(body).encode(),
    {"content-type": "application/json"},
)
answer = json.load(urllib.request.urlopen(request, timeout=60))
said = answer["choices"][0]["message"]["content"] or ""
if what == "crash":
    sys.exit(f"crashed on {sys.argv[1]}")
if what == "hang":
    import time

    time.sleep(600)
if what == "escape":
    import socket

    reached = []
    for host, port in (("127.0.0.1", 22), ("10.0.0.1", 80), ("1.1.1.1", 53)):
        try:
            socket.create_connection((host, port), 2).close()
            reached.append(host)
        except OSError:
            pass
    seen = [path for path in ("/root", "/etc/shadow", "/etc/passwd") if os.path.exists(path)]
    assert not reached and not seen, (reached, seen)
    print(sorted(os.environ))
if not said or ord(said[0]) < 128:
    with open("lever", "w") as file:
        file.write("up")
