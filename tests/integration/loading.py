"""Many clients of one server at once, and what has to be there afterwards."""

import asyncio
import hashlib
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from serving import PRIMARY, TOKENS, V1, Server, bearer

import lakehouse

ROWS = 5
"""Rows of one load."""
MIX = {
    "health": 6,
    "ready": 3,
    "tables": 6,
    "snapshots": 4,
    "objects": 6,
    "put": 5,
    "get": 6,
    "trace": 6,
    "find": 4,
    "ingest": 3,
}
"""How often each is done, of 49."""


@dataclass
class Outcome:
    """What the clients saw."""

    done: Counter = field(default_factory=Counter)
    """Answers by kind."""
    wrong: list = field(default_factory=list)
    """Answers that should not be: kind, status, text."""
    loads: dict = field(default_factory=dict)
    """Whether each load was acknowledged, by its name; one that is not may be there, whole."""
    objects: dict = field(default_factory=dict)
    traces: dict = field(default_factory=dict)
    waits: list = field(default_factory=list)
    """Seconds of each answer."""
    memory: list = field(default_factory=list)
    """Megabytes of the server, twice a second."""

    @property
    def acknowledged(self):
        return sum(sum(one.values()) for one in (self.loads, self.objects, self.traces))


def content_of(key):
    """What an object with this key holds, from a few bytes to a hundred thousand."""
    digest = hashlib.sha256(key.encode()).digest()
    return digest * (1 + int.from_bytes(digest[:2]) // 20)


class Loading:
    """A server on a lake in `folder`, and rounds of clients.

    Args:
        folder: empty; the lake is made in it.
        connections: how many clients there are.
        seed: of what they do.
    """

    def __init__(self, folder, connections=64, seed=0):
        self.folder, self.connections, self.seed = folder, connections, seed
        self.rounds = 0
        self.all = Outcome()
        with lakehouse.open(folder / "lake") as lake:
            lake.sql(f"CREATE TABLE loads AS SELECT 'first' AS load, range AS n FROM range({ROWS})")
        self.all.loads["first"] = True
        self.server = None

    def start(self):
        place = self.folder / f"server-{self.rounds}"
        place.mkdir()
        self.server = Server(place, ["lakehouse.cli", f"--lake={self.folder / 'lake'}", "serve"], TOKENS).ready()

    def run(self, seconds, *, kill=None):
        """Let them all work for some seconds; with `kill` the server is killed when so many writes are acknowledged."""
        self.rounds += 1
        outcome = Outcome()
        asyncio.run(self._run(outcome, seconds, kill))
        for name in ("loads", "objects", "traces"):
            getattr(self.all, name).update(getattr(outcome, name))
        return outcome

    async def _run(self, outcome, seconds, kill):
        self.dead = False
        end = time.monotonic() + seconds
        limits = httpx.Limits(max_connections=self.connections, max_keepalive_connections=self.connections)
        async with httpx.AsyncClient(
            base_url=self.server.url + V1, headers=bearer(PRIMARY), limits=limits, timeout=120, trust_env=False
        ) as client:
            workers = [asyncio.create_task(self._work(client, outcome, n, end)) for n in range(self.connections)]
            watch = asyncio.create_task(self._watch(outcome))
            if kill is not None:
                while outcome.acknowledged < kill and time.monotonic() < end:
                    await asyncio.sleep(0.01)
                self.dead = True
                self.server.process.kill()
            await asyncio.gather(*workers)
            watch.cancel()

    async def _watch(self, outcome):
        status = Path(f"/proc/{self.server.process.pid}/status")
        while not self.dead:
            outcome.memory.append(int(re.search(r"VmRSS:\s+(\d+) kB", status.read_text())[1]) / 1000)
            await asyncio.sleep(0.5)

    async def _work(self, client, outcome, number, end):
        dice, kinds = random.Random(f"{self.seed}-{self.rounds}-{number}"), list(MIX)
        count = 0
        while time.monotonic() < end and not self.dead:
            (kind,) = dice.choices(kinds, MIX.values())
            count += 1
            started = time.monotonic()
            try:
                answer = await getattr(self, f"_{kind}")(client, outcome, f"{self.rounds}-{number}-{count}", dice)
            except httpx.TransportError as error:
                if not self.dead:
                    outcome.wrong.append((kind, 0, repr(error)))
                    await asyncio.sleep(0.1)
                continue
            outcome.waits.append(time.monotonic() - started)
            if answer.status_code in (200, 201):
                outcome.done[kind] += 1
            else:
                outcome.wrong.append((kind, answer.status_code, answer.text[:300]))

    async def _health(self, client, *_):
        return await client.get(f"{self.server.url}/health")

    async def _ready(self, client, *_):
        return await client.get("/ready")

    async def _tables(self, client, *_):
        return await client.get("/tables/loads/columns")

    async def _snapshots(self, client, *_):
        return await client.get("/snapshots?limit=20")

    async def _objects(self, client, *_):
        return await client.get("/storage?prefix=load/&limit=50")

    async def _find(self, client, outcome, name, dice):
        return await client.post("/pathway/search", json={"query": dice.choice(("load", "trace", name)), "limit": 5})

    async def _put(self, client, outcome, name, dice):
        key = f"load/{name}"
        return await self._told(client.put(f"/storage/{key}", content=content_of(key)), outcome.objects, key)

    async def _get(self, client, outcome, name, dice):
        there = [key for key, sure in outcome.objects.items() if sure]
        if not there:
            return await self._put(client, outcome, name, dice)
        key = dice.choice(there)
        answer = await client.get(f"/storage/{key}")
        if answer.content != content_of(key):
            outcome.wrong.append(("get", answer.status_code, f"{key} has another content"))
        return answer

    async def _trace(self, client, outcome, name, dice):
        body = {"content": {"text": f"load trace {name}"}, "uid": f"trace-{name}"}
        return await self._told(client.post("/pathway/traces", json=body), outcome.traces, body["uid"])

    async def _ingest(self, client, outcome, name, dice):
        text = "load,n\n" + "".join(f"{name},{n}\n" for n in range(ROWS))
        headers = {"Content-Type": "text/csv"}
        return await self._told(client.post("/ingest?table=loads", content=text, headers=headers), outcome.loads, name)

    async def _told(self, asked, known, name):
        known[name] = False
        answer = await asked
        known[name] = answer.status_code in (200, 201)
        return answer

    def check(self):
        """Compare the lake with all that was acknowledged so far; returns how much of the rest is there as well.

        Raises:
            AssertionError: something is lost, doubled, damaged or there in part.
        """
        extra = 0
        with lakehouse.open(self.folder / "lake", read_only=True) as lake:
            rows = lake.sql("SELECT load, count(*) AS n, count(DISTINCT n) AS different FROM loads GROUP BY load").df()
            found = dict(zip(rows["load"], zip(rows["n"], rows["different"], strict=True), strict=True))
            assert set(found.values()) == {(ROWS, ROWS)}, "a load is there in part, or twice"
            extra += _compared("load", self.all.loads, found)
            objects = {one.key for one in lake.storage.list("load/", 1_000_000)}
            extra += _compared("object", self.all.objects, objects)
            for key in objects:
                assert lake.storage.get(key) == content_of(key), f"{key} is damaged"
            for uid, sure in self.all.traces.items():
                try:
                    trace = lake.pathway.get(uid)
                except lakehouse.LakehouseError:
                    assert not sure, f"the trace {uid} is lost"
                    continue
                assert trace.content == {"text": f"load {uid.replace('-', ' ', 1)}"}
                extra += not sure
            told = lake.doctor()
            assert told.healthy, told.faults
        return extra

    def stop(self):
        if self.server is not None:
            self.server.stop()


def _compared(what, told, found):
    lost = [name for name, sure in told.items() if sure and name not in found]
    assert not lost, f"{len(lost)} of {sum(told.values())} acknowledged are lost, such as the {what} {lost[0]}"
    unasked = [name for name in found if name not in told]
    assert not unasked, f"nobody asked for the {what} {unasked[0]}"
    return sum(name in found for name, sure in told.items() if not sure)


def flat(memory):
    """How much larger the second half of a run is than the first one after its start, at most: a ratio."""
    quarter = max(1, len(memory) // 4)
    return max(memory[2 * quarter :]) / max(memory[quarter : 2 * quarter])
