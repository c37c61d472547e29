"""A search service with its whole index in memory, as a container would run it.

At the start it imports numpy and flask, makes an embedding for each of its documents,
and hashes them into buckets so that a search looks at few of them. That takes a few
seconds and some 350 MB: what a checkpoint saves a start from doing.

    GET /             who answers: hostname, pid, boot id, requests so far, memory
    GET /search?q=..  the documents nearest to the words
    GET /stream       a slow answer in chunks (?chunks=, ?interval= in seconds)
"""

import time

STARTED = time.monotonic()

import itertools  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import uuid  # noqa: E402
import zlib  # noqa: E402

import numpy as np  # noqa: E402
from flask import Flask, Response, jsonify, request  # noqa: E402
from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: E402

DOCUMENTS = int(os.environ.get("DOCUMENTS", "600000"))
DIMENSIONS = 128
TABLES = 4
PLANES = 12
BLOCK = 20_000
PORT = int(os.environ.get("PORT", "8080"))

WORDS = (
    "archive bridge candle desert engine forest garden harbor island jacket kernel ladder "
    "market needle orange pencil quarry rocket silver temple umbrella valley window yellow "
    "anchor basket copper dragon ember falcon glacier hammer ivory jungle kettle lantern "
    "mirror nectar oyster parcel quartz ribbon saddle thunder uniform velvet walnut zephyr"
).split()


class Index:
    """Embeddings of all documents, with tables of locality-sensitive buckets over them."""

    def __init__(self, documents):
        random = np.random.default_rng(7)
        # A word is a direction; a document lies near the sum of its three words.
        self.words = self.unit(random.standard_normal((len(WORDS), DIMENSIONS), dtype=np.float32))
        self.planes = random.standard_normal((DIMENSIONS, TABLES * PLANES), dtype=np.float32)
        self.parts = random.integers(0, len(WORDS), (documents, 3), dtype=np.uint8)
        self.vectors = np.empty((documents, DIMENSIONS), dtype=np.float32)
        codes = np.empty((documents, TABLES), dtype=np.int16)
        for start in range(0, documents, BLOCK):
            rows = slice(start, min(start + BLOCK, documents))
            parts = self.parts[rows]
            block = self.vectors[rows]
            random.random(out=block, dtype=np.float32)
            block -= 0.5
            for column in range(3):
                block += self.words[parts[:, column]]
            block /= np.sqrt(np.einsum("ij,ij->i", block, block))[:, None]
            codes[rows] = self.codes(block)
        self.tables = [self.buckets(codes[:, table]) for table in range(TABLES)]

    def codes(self, vectors):
        """On which side of each plane the vectors lie: one number for each table."""
        sides = (vectors @ self.planes > 0).reshape(*vectors.shape[:-1], TABLES, PLANES)
        return sides @ (1 << np.arange(PLANES, dtype=np.int16))

    @staticmethod
    def buckets(codes):
        """The documents in the order of their buckets, and where each bucket starts."""
        order = np.argsort(codes, kind="stable").astype(np.int32)
        return order, np.searchsorted(codes[order], np.arange((1 << PLANES) + 1))

    @staticmethod
    def unit(rows):
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def embed(self, text):
        total = np.zeros(DIMENSIONS, dtype=np.float32)
        for word in text.lower().split():
            total += self.words[WORDS.index(word) if word in WORDS else zlib.crc32(word.encode()) % len(WORDS)]
        return total

    def search(self, text, limit=10):
        wanted = self.embed(text)
        # In each table the bucket itself, and those across one plane.
        found = []
        for code, (order, starts) in zip(self.codes(wanted), self.tables):
            for bucket in (int(code), *(int(code) ^ (1 << plane) for plane in range(PLANES))):
                found.append(order[starts[bucket] : starts[bucket + 1]])
        rows = np.unique(np.concatenate(found))
        if not rows.size:
            return []
        scores = self.vectors[rows] @ wanted
        best = np.argsort(-scores)[:limit]
        return [
            {"document": int(rows[i]), "title": " ".join(WORDS[p] for p in self.parts[rows[i]]),
             "score": round(float(scores[i]), 4)}
            for i in best
        ]


def resident_bytes():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def application(index, boot_id):
    app = Flask(__name__)
    count = itertools.count(1)

    @app.get("/")
    def who():
        return jsonify(
            app="python", hostname=socket.gethostname(), pid=os.getpid(), boot_id=boot_id,
            requests=next(count), rss_bytes=resident_bytes(), documents=DOCUMENTS,
        )

    @app.get("/search")
    def search():
        text = request.args.get("q", "silver harbor")
        return jsonify(boot_id=boot_id, requests=next(count), query=text, results=index.search(text))

    @app.get("/stream")
    def stream():
        chunks = request.args.get("chunks", 30, int)
        interval = request.args.get("interval", 1.0, float)
        next(count)

        def lines():
            for number in range(chunks):
                yield f"chunk {number} {boot_id}\n"
                time.sleep(interval)

        return Response(lines(), mimetype="text/plain")

    @app.after_request
    def log(response):
        print(f"{request.remote_addr} {request.method} {request.full_path.rstrip('?')} {response.status_code}", flush=True)
        return response

    return app


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept, streams are chunked

    def log(self, kind, message, *arguments):
        pass  # the application logs its requests


def main():
    # As a container's first process a signal without a handler would be ignored.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    boot_id = str(uuid.uuid4())
    index = Index(DOCUMENTS)
    index.search("silver harbor")
    app = application(index, boot_id)
    server = make_server("0.0.0.0", PORT, app, threaded=True, request_handler=Handler)
    server.daemon_threads = True
    print(f"ready boot_id={boot_id} port={PORT} after={time.monotonic() - STARTED:.2f}s "
          f"rss={resident_bytes() >> 20}MiB", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
