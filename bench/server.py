"""What is asked of a server, that of PGHOST and the like, by its own programs, which are in BIN."""
import glob
import os
import statistics
import subprocess
import tempfile
import time


def program(name):
    return os.path.join(os.environ["BIN"], name)


def psql(query, cwd=None, **variables):
    command = [program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1"]
    for name, value in variables.items():
        command += ["-v", f"{name}={value}"]
    return subprocess.run(command, input=query, text=True, check=True, cwd=cwd,
                          capture_output=True).stdout.strip()


def timed(query):
    """Milliseconds."""
    start = time.perf_counter()
    psql(query)
    return (time.perf_counter() - start) * 1e3


def answers(script, sessions, each):
    """Milliseconds of every answer where so many sessions ask so often, and of all."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "one.sql")
        with open(path, "w", encoding="ascii") as file:
            file.write(script)
        start = time.perf_counter()
        subprocess.run([program("pgbench"), "-n", "-c", str(sessions), "-j", "1", "-t", str(each),
                        "-f", path, "-l", "--log-prefix", "log"],
                       cwd=directory, check=True, capture_output=True)
        wall = (time.perf_counter() - start) * 1e3
        return [int(line.split()[2]) / 1e3 for path in glob.glob(directory + "/log*")
                for line in open(path, encoding="ascii")], wall


def waits(times):
    """The median and the 99th percentile."""
    times = sorted(times)
    return dict(p50=statistics.median(times),
                p99=times[min(len(times) - 1, int(len(times) * 0.99))])
