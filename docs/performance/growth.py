#!/usr/bin/env python3
"""How cost grows with the size of the tree.

    docs/performance/growth.py target/release/layer-sync SCRATCH [--sizes 1000,10000] [--out DIR]

For each size it makes a tree of small files in a new folder below SCRATCH, and measures `layer-sync up` on it:
the first sync, a run with nothing to do, one edit on a running pair, and that pair at rest; and beside them
`find -printf` on the same tree, which is the least that any program pays that looks at all of it. It
writes `growth.csv` after each size, draws `growth.svg` from it, prints the table, and removes what it made.

Linux, Python 3.11, GNU find and coreutils; about 25 minutes for all sizes, and 8 GiB. Nothing else should be
running: the figures are wall time on a warm cache. docs/performance.md says what each measure means.
"""

import argparse
import csv
import math
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

SIZES = [1_000, 10_000, 100_000, 500_000]
FILES_PER_DIR = 40
DIRS_PER_DIR = 100
BYTES_MIN, BYTES_MAX = 200, 4000
WORDS = "the tree is kept equal on two machines and what was replaced stays in it for a while".split()
# What was written within two seconds before a look is read again at the next one.
RACY_SECONDS = 2.5
EDITS = 9
EDIT_SECONDS_MAX = 60
POLL_SECONDS = 0.002
# From the first edit that arrives until the pair is taken to be at rest.
SETTLE_SECONDS = 10
# A sweep comes every 30 s, on a large tree less often: 10 minutes at the most. A shorter look at the pair at rest
# would see none, or too many of them.
IDLE_SECONDS_MIN, IDLE_SECONDS_MAX = 60, 600
IDLE_SECONDS_PER_FILE = 0.003
FIRST_EDIT_SECONDS_MAX = 600


@dataclass
class Row:
    """One line of `growth.csv`."""

    files: int
    tree_mib: float
    find_s: float
    first_wall_s: float
    first_cpu_s: float
    first_rss_mib: float
    second_wall_s: float
    second_cpu_s: float
    second_rss_mib: float
    edit_median_s: float
    edit_max_s: float
    idle_s: float
    idle_cpu_percent: float
    idle_rss_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path, nargs="?", help="a release build of layer-sync")
    parser.add_argument("scratch", type=Path, nargs="?", help="a folder on the volume to measure")
    parser.add_argument("--sizes", type=sizes, default=SIZES, help="files in each tree, with commas between")
    parser.add_argument("--idle", type=float, help="seconds to watch the pair at rest [default: 60 to 600, by size]")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where csv and svg go")
    parser.add_argument("--draw", action="store_true", help="only draw the plot and print the table, from the csv")
    args = parser.parse_args()

    # Whoever ends this ends the pair, and removes the trees.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("growth.py: ended"))
    table = args.out / "growth.csv"
    if not args.draw:
        if args.binary is None or args.scratch is None:
            parser.error("needs a binary and a scratch folder")
        rows = []
        for size in args.sizes:
            by_size = min(max(IDLE_SECONDS_MIN, size * IDLE_SECONDS_PER_FILE), IDLE_SECONDS_MAX)
            rows.append(measure(args.binary.resolve(), args.scratch, size, args.idle or by_size))
            write_csv(table, rows)
        print(machine(args.scratch))
    rows = read_csv(table)
    (args.out / "growth.svg").write_text(drawing(rows))
    print(markdown(rows))


def sizes(text: str) -> list[int]:
    return [int(size.replace("_", "")) for size in text.split(",")]


# The tree


def name(number: int) -> str:
    folder = number // FILES_PER_DIR
    return f"{folder // DIRS_PER_DIR:03}/{folder:05}/note-{number:06}.md"


def make_tree(root: Path, files: int) -> int:
    """Writes the files, always the same ones for a number of files. Returns their bytes."""
    chance = random.Random(files)
    text = " ".join(chance.choice(WORDS) for _ in range(4 * BYTES_MAX))
    total = 0
    for number in range(files):
        path = root / name(number)
        if number % FILES_PER_DIR == 0:
            path.parent.mkdir(parents=True)
        start, length = chance.randrange(BYTES_MAX), chance.randint(BYTES_MIN, BYTES_MAX)
        content = f"{number}\n{text[start:start + length]}\n"
        path.write_text(content)
        total += len(content)
    return total


# Measuring


def measure(binary: Path, scratch: Path, files: int, idle_s: float) -> Row:
    work = Path(tempfile.mkdtemp(prefix=f"growth-{files}-", dir=scratch))
    try:
        note(f"{files} files: making the tree")
        source, replica = work / "source", work / "replica"
        source.mkdir()
        tree_bytes = make_tree(source, files)
        os.sync()
        time.sleep(RACY_SECONDS)

        find = ["find", str(source), "-printf", "%s %T@ %p\n"]
        run(find, work)
        limit = run(find, work)
        command = [str(binary), "--home", str(work / "home"), "up", str(source), str(replica)]
        note("first sync")
        first = run([*command, "--once"], work)
        check_equal(source, replica, files)
        time.sleep(RACY_SECONDS)
        note("second run")
        second = run([*command, "--once"], work)
        note("running pair")
        edits, idle_cpu, idle_rss = running(command, work, source, replica, files, idle_s)
        return Row(
            files=files,
            tree_mib=tree_bytes / 2**20,
            find_s=limit.wall_s,
            first_wall_s=first.wall_s,
            first_cpu_s=first.cpu_s,
            first_rss_mib=first.rss_mib,
            second_wall_s=second.wall_s,
            second_cpu_s=second.cpu_s,
            second_rss_mib=second.rss_mib,
            edit_median_s=statistics.median(edits),
            edit_max_s=max(edits),
            idle_s=idle_s,
            idle_cpu_percent=idle_cpu,
            idle_rss_mib=idle_rss,
        )
    finally:
        note("removing the tree")
        shutil.rmtree(work)


@dataclass
class Ran:
    wall_s: float
    cpu_s: float
    rss_mib: float


def run(command: list[str], work: Path) -> Ran:
    """Runs a program to its end. Its peak memory counts from the fork on, so this one has to be small."""
    with open(work / "output", "wb") as output:
        began = time.monotonic()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            _, status, used = os.wait4(child.pid, 0)
        except BaseException:
            child.kill()
            raise
        wall = time.monotonic() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        fail(f"{command[0]} ended with {child.returncode}", work)
    return Ran(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def check_equal(source: Path, replica: Path, files: int) -> None:
    """A sync that left something out would be fast. Every hundredth file is compared, and all are counted."""
    found = sum(len(inside) for at, _, inside in walk(replica))
    if found != files:
        sys.exit(f"growth.py: the replica has {found} files and not {files}")
    for number in range(0, files, 100):
        if (source / name(number)).read_bytes() != (replica / name(number)).read_bytes():
            sys.exit(f"growth.py: {name(number)} is not equal")


def walk(root: Path):
    for at, folders, inside in os.walk(root):
        if ".layer-sync" in folders:
            folders.remove(".layer-sync")
        yield at, folders, inside


def running(command: list[str], work: Path, source: Path, replica: Path, files: int, idle_s: float):
    """Measures edits on a pair that runs, and the pair at rest: seconds of each, percent, MiB."""
    with open(work / "output", "wb") as output:
        pair = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        # The first one also waits until both sides have looked at their trees.
        edit(pair, work, source, replica, 0, FIRST_EDIT_SECONDS_MAX)
        time.sleep(SETTLE_SECONDS)
        edits = []
        for turn in range(EDITS):
            number = (turn + 1) * files // (EDITS + 1)
            edits.append(edit(pair, work, source, replica, number, EDIT_SECONDS_MAX))
            time.sleep(1)
        time.sleep(SETTLE_SECONDS)
        before = cpu_seconds(pair.pid)
        time.sleep(idle_s)
        idle = (cpu_seconds(pair.pid) - before) / idle_s * 100
        return edits, idle, rss_mib(pair.pid)
    finally:
        pair.terminate()
        try:
            pair.wait(timeout=60)
        except subprocess.TimeoutExpired:
            pair.kill()
            pair.wait()


def edit(pair, work: Path, source: Path, replica: Path, number: int, seconds_max: float) -> float:
    """Saves one file as an editor does that writes in place, and waits for it to be on the other side."""
    at, there = source / name(number), replica / name(number)
    content = at.read_bytes() + f"edited at {time.time_ns()}\n".encode()
    began = time.monotonic()
    at.write_bytes(content)
    while there.read_bytes() != content:
        if pair.poll() is not None:
            fail("the pair has ended", work)
        if time.monotonic() - began > seconds_max:
            fail(f"an edit has not arrived within {seconds_max} s", work)
        time.sleep(POLL_SECONDS)
    return time.monotonic() - began


def cpu_seconds(pid: int) -> float:
    # The name of the program stands in parentheses, and may have spaces.
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = int(after_name[11]), int(after_name[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) / 1024


def fail(text: str, work: Path) -> None:
    said = (work / "output").read_text(errors="replace")[-2000:]
    sys.exit(f"growth.py: {text}\n{said}")


def note(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def machine(scratch: Path) -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    asked = subprocess.run(["df", "--output=fstype", str(scratch)], capture_output=True, text=True, check=True)
    volume = asked.stdout.split()[-1]
    system = os.uname()
    return f"{os.cpu_count()} CPUs, {memory:.0f} GiB, {system.sysname} {system.release}, {volume}\n"


# Showing


def write_csv(at: Path, rows: list[Row]) -> None:
    with open(at, "w", newline="") as file:
        out = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        out.writeheader()
        for row in rows:
            out.writerow({key: f"{value:.6g}" for key, value in asdict(row).items()})


def read_csv(at: Path) -> list[Row]:
    with open(at, newline="") as file:
        return [Row(**{key: field_of(key, value) for key, value in row.items()}) for row in csv.DictReader(file)]


def field_of(key: str, value: str) -> int | float:
    return int(float(value)) if key == "files" else float(value)


def markdown(rows: list[Row]) -> str:
    head = ["Files", "`find`", "First sync", "CPU", "Peak memory", "Nothing to do", "CPU", "Peak memory"]
    head += ["One edit", "slowest of 9", "CPU at rest", "Memory at rest"]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---:" for _ in head) + " |"]
    for row in rows:
        cells = [f"{row.files:,}", seconds(row.find_s)]
        cells += [seconds(row.first_wall_s), seconds(row.first_cpu_s), mib(row.first_rss_mib)]
        cells += [seconds(row.second_wall_s), seconds(row.second_cpu_s), mib(row.second_rss_mib)]
        cells += [seconds(row.edit_median_s), seconds(row.edit_max_s)]
        cells += [f"{row.idle_cpu_percent:.2f} %", mib(row.idle_rss_mib)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def mib(value: float) -> str:
    return f"{value:.0f} MiB"


# The colours of Okabe and Ito: told apart by everybody, and in print.
TIMES = [
    ("first sync", "first_wall_s", "#0072b2", ""),
    ("first sync, CPU", "first_cpu_s", "#0072b2", "5 4"),
    ("nothing to do", "second_wall_s", "#009e73", ""),
    ("nothing to do, CPU", "second_cpu_s", "#009e73", "5 4"),
    ("one edit, median", "edit_median_s", "#d55e00", ""),
    ("find -printf (limit)", "find_s", "#555555", "2 3"),
]
MEMORY = [
    ("first sync, peak", "first_rss_mib", "#0072b2", ""),
    ("nothing to do, peak", "second_rss_mib", "#009e73", ""),
    ("running pair at rest", "idle_rss_mib", "#d55e00", ""),
]
REST = [("running pair at rest", "idle_cpu_percent", "#d55e00", "")]


def drawing(rows: list[Row]) -> str:
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 920 840" width="920" height="840"'
        ' font-family="sans-serif" font-size="13" fill="#222222">',
        '<rect width="920" height="840" fill="#ffffff"/>',
        '<text x="24" y="30" font-size="17" font-weight="bold">How cost grows with the number of files</text>',
    ]
    parts += panel(rows, TIMES, (80, 60, 600, 380), "time in seconds")
    parts += panel(rows, MEMORY, (80, 570, 280, 200), "memory in MiB")
    # Less than one tick of the clock cannot be told from nothing.
    tick = min(100 / os.sysconf("SC_CLK_TCK") / row.idle_s for row in rows)
    parts += panel(rows, REST, (580, 570, 280, 200), "CPU in % of one core", least=tick)
    return "\n".join([*parts, "</svg>", ""])


def panel(rows, lines, place, unit, least=1e-9) -> list[str]:
    """Draws one pair of logarithmic axes with its lines and their names."""
    left, top, width, height = place
    values = [max(getattr(row, key), least) for row in rows for _, key, _, _ in lines]
    low, high = decades(values)
    first, last = decades([row.files for row in rows])

    def x(files: float) -> float:
        return left + width * (math.log10(files) - first) / (last - first)

    def y(value: float) -> float:
        return top + height * (high - math.log10(max(value, least))) / (high - low)

    parts = []
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(f'<path d="M{left} {at:.1f}h{width}" stroke="#dddddd"/>')
        parts.append(f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{10.0**power:,g}</text>')
    for power in range(first, last + 1):
        at = x(10.0**power)
        parts.append(f'<path d="M{at:.1f} {top}v{height}" stroke="#dddddd"/>')
        parts.append(f'<text x="{at:.1f}" y="{top + height + 19}" text-anchor="middle">{10**power:,}</text>')
    parts.append(f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#888888"/>')
    middle = left + width / 2
    parts.append(f'<text x="{middle}" y="{top + height + 40}" text-anchor="middle">files in the tree</text>')
    middle, side = top + height / 2, left - 58
    parts.append(
        f'<text x="{side}" y="{middle}" text-anchor="middle" transform="rotate(-90 {side} {middle})">{unit}</text>'
    )
    for index, (title, key, colour, dash) in enumerate(lines):
        points = [(x(row.files), y(getattr(row, key))) for row in rows]
        stroke = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash or "none"}"'
        parts.append(f'<polyline points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}" {stroke}/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
        beside = width > 400
        to_right, down = (left + width + 18, top + 12) if beside else (left, top - 14 - 17 * (len(lines) - 1))
        at = down + index * (22 if beside else 17)
        parts.append(f'<path d="M{to_right} {at}h28" {stroke}/>')
        parts.append(f'<text x="{to_right + 36}" y="{at + 4}">{title}</text>')
    return parts


def decades(values: list[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


if __name__ == "__main__":
    main()
