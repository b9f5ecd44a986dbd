"""Claim: the server answers every request of several clients, at about the throughput of a loop
over the same files, although each is decoded in a separate process.

    python benchmarks/serving.py --model artifacts/classifier [--clients 8] [--requests 160]
        [--media DIR]

Starts `anymodal serve` on a free port of this machine, with its default limits, and sends it one
file per request: audio of 1 to 6 s and photographs of 0.3 to 2 megapixels, made here of noise and
colours, or the files of DIR. Clients and server share the processors. Compared with:

* loop: `classifier.predict([content])`, one file after another, in this process.
* one client: the same server, one request at a time.

An answer counts if it is 200 and its probability of the loop's best class is the loop's (± 0.02: a
batch is rounded differently from a single item). All other statuses are printed; a request without
any response is lost.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from anymodal.classifier.model import ModalityAgnosticClassifier
from anymodal.core.errors import AnymodalError

TOLERANCE = 0.02


def made(number: int, rng: np.random.Generator) -> list[bytes]:
    """Audio files and images, alternating."""
    contents = []
    for place in range(number):
        buffer = io.BytesIO()
        if place % 2:
            side = int(rng.integers(20, 50))
            coarse = rng.integers(0, 255, (3 * side // 4, side, 3), dtype=np.uint8)
            size = (side * 32, 3 * side // 4 * 32)
            Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG")
        else:
            seconds, rate = float(rng.uniform(1, 6)), 44_100
            t = np.arange(int(seconds * rate)) / rate
            tone = sum(np.sin(2 * np.pi * rng.uniform(100, 2000) * n * t) / n for n in (1, 2, 3))
            samples = 0.2 * tone * np.exp(-t) + 0.01 * rng.standard_normal(len(t))
            soundfile.write(buffer, samples.clip(-1, 1), rate, format="WAV")
        contents.append(buffer.getvalue())
    return contents


@dataclass
class Tally:
    """Outcomes of the requests."""

    seconds: list[float] = field(default_factory=list)
    outcomes: Counter = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, outcome: str, seconds: float) -> None:
        with self.lock:
            self.outcomes[outcome] += 1
            self.seconds.append(seconds)


def ask(connection: http.client.HTTPConnection, content: bytes) -> tuple[int, dict]:
    """One file, one answer."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="f"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    connection.request("POST", "/predict", body, kind)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def load(
    port: int, contents: list[bytes], expected: list[tuple[str, float]], clients: int, requests: int
) -> tuple[Tally, float]:
    """Send requests from `clients` threads; return their outcomes and the seconds taken."""
    tally, turn = Tally(), count()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while (number := next(turn)) < requests:
            place = number % len(contents)
            began = time.perf_counter()
            try:
                status, answer = ask(connection, contents[place])
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                tally.note(f"lost: {type(error).__name__}", time.perf_counter() - began)
                continue
            outcome = str(status)
            if status == 200:
                probabilities = answer["items"][0]["prediction"]["probabilities"]
                name, probability = expected[place]
                if abs(probabilities[name] - probability) > TOLERANCE:
                    outcome = "wrong answer"
            tally.note(outcome, time.perf_counter() - began)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally, time.perf_counter() - began


def line(name: str, seconds: list[float], wall: float) -> str:
    """One line of figures."""
    p50, p99 = np.percentile(seconds, [50, 99])
    rate = len(seconds) / wall
    return f"{name:20s} p50 {1e3 * p50:7.1f} ms  p99 {1e3 * p99:7.1f} ms  {rate:7.1f} files/s"


def main() -> int:
    parser = argparse.ArgumentParser(description=" ".join(__doc__.split("\n\n")[0].split()))
    parser.add_argument("--model", default="artifacts/classifier")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=160)
    parser.add_argument("--files", type=int, default=40, help="different files")
    parser.add_argument("--media", type=Path, help="folder of real files")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    classifier = ModalityAgnosticClassifier.load(options.model)
    rng = np.random.default_rng(0)
    if options.media:
        paths = sorted(path for path in options.media.rglob("*") if path.is_file())
        chosen = [path.read_bytes() for path in rng.permutation(np.array(paths, dtype=object))]
    else:
        chosen = made(options.files, rng)
    contents: list[bytes] = []
    expected: list[tuple[str, float]] = []
    for content in chosen:
        if len(contents) == options.files:
            break
        try:
            (answer,) = classifier.predict([content])
        except AnymodalError:
            continue
        contents.append(content)
        expected.append(answer.top(1)[0])
    if not contents:
        raise SystemExit("none of the files can be classified")
    server = subprocess.Popen(
        [sys.executable, "-m", "anymodal", "serve", "--model", options.model, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline().rstrip().rpartition(":")[2])
        load(port, contents, expected, options.clients, len(contents))  # warm up
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        print(
            f"{len(contents)} files, {sum(map(len, contents)) / len(contents) / 1024:,.0f} KiB on "
            f"average; {cores} processors, load {os.getloadavg()[0]:.1f} before"
        )
        outcomes: Counter = Counter()
        ratios, costs = [], []
        for _ in range(options.rounds):
            seconds = []
            for number in range(options.requests // 2):
                began = time.perf_counter()
                classifier.predict([contents[number % len(contents)]])
                seconds.append(time.perf_counter() - began)
            alone, alone_s = load(port, contents, expected, 1, options.requests // 2)
            many, many_s = load(port, contents, expected, options.clients, options.requests)
            print(line("loop", seconds, sum(seconds)))
            print(line("one client", alone.seconds, alone_s))
            print(line(f"{options.clients} clients", many.seconds, many_s))
            outcomes += alone.outcomes + many.outcomes
            ratios.append(options.requests / many_s / (len(seconds) / sum(seconds)))
            costs.append(statistics.median(alone.seconds) / statistics.median(seconds))
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
    sent, answered = outcomes.total(), outcomes["200"]
    lost = sum(number for outcome, number in outcomes.items() if outcome.startswith("lost"))
    print(f"sent {sent}, answered {answered}, lost {lost}, all: {dict(outcomes)}")
    print(f"exit status after SIGTERM: {code}; load {os.getloadavg()[0]:.1f} after")
    print(
        f"throughput, {options.clients} clients / loop: {statistics.median(ratios):.2f} x "
        f"(rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios)})"
    )
    print(
        f"median time, one client / loop: {statistics.median(costs):.2f} x "
        f"(rounds: {', '.join(f'{cost:.2f}' for cost in costs)})"
    )
    return 0 if answered == sent and not code else 1


if __name__ == "__main__":
    sys.exit(main())
