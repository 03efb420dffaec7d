"""An application around the Python ConnectionManager, reduced to its edges: it signs tokens as its login does, publishes
progress as its pydantic models do, and follows `upload:*` on Redis as its listener does. Standard library only.

    application.py token SECRET USER SECONDS      prints a JWT
    application.py publish HOST:PORT UPLOAD TEXT  publishes one upload_progress on Redis, prints its bytes
    application.py post URL KEY UPLOAD TEXT       publishes the same through Shoal's HTTP API, prints the status
    application.py listen HOST:PORT               prints "listening", then each payload of `upload:*`
"""

import base64
import hashlib
import hmac
import json
import socket
import sys
import time
import urllib.request
from datetime import datetime, timezone


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(secret: str, user: str, seconds: str) -> str:
    header = segment(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    claims = {"sub": user, "exp": int(time.time()) + int(seconds), "type": "access", "token_version": 0}
    signed = header + "." + segment(json.dumps(claims).encode())
    return signed + "." + segment(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest())


def progress(upload: str, text: str) -> bytes:
    # model_dump_json() of a model whose timestamp is datetime.utcnow(): no zone.
    message = {
        "action": "upload_progress",
        "payload": {
            "upload_id": upload,
            "status": "analyzing",
            "stage": "vision_analysis",
            "progress_percent": 40,
            "message": text,
            "error_message": None,
            "description_audit_score": None,
        },
        "timestamp": datetime.now(timezone.utc).replace(tzinfo=None).isoformat(),
    }
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


class Redis:
    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self.stream = socket.create_connection((host, int(port))).makefile("rwb")

    def send(self, *words: bytes) -> None:
        self.stream.write(b"*%d\r\n" % len(words))
        for word in words:
            self.stream.write(b"$%d\r\n%s\r\n" % (len(word), word))
        self.stream.flush()

    def receive(self):
        line = self.stream.readline()
        if not line:
            raise EOFError
        kind, rest = line[:1], line[1:].strip()
        if kind == b"*":
            return [self.receive() for _ in range(int(rest))]
        if kind == b"$":
            return self.stream.read(int(rest) + 2)[:-2]
        return rest


def publish(address: str, upload: str, text: str) -> None:
    payload = progress(upload, text)
    redis = Redis(address)
    redis.send(b"PUBLISH", b"upload:" + upload.encode(), payload)
    redis.receive()
    print(payload.decode())


def post(url: str, key: str, upload: str, text: str) -> None:
    request = urllib.request.Request(
        f"{url}/v1/uploads/{upload}/messages",
        data=progress(upload, text),
        headers={"Authorization": "Bearer " + key, "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        print(response.status)


def listen(address: str) -> None:
    redis = Redis(address)
    redis.send(b"PSUBSCRIBE", b"upload:*")
    redis.receive()
    print("listening", flush=True)
    while True:
        print(redis.receive()[3].decode(), flush=True)


def main() -> None:
    command, *arguments = sys.argv[1:]
    if command == "token":
        print(token(*arguments))
    else:
        {"publish": publish, "post": post, "listen": listen}[command](*arguments)


main()
