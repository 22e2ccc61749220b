"""slurm.sh on an allocation of two nodes that are both this machine: its Ray is real, SLURM's commands are stand-ins.

The stand-in for `srun` checks that it is asked for one task a node, and runs the command here; that for `make` writes
down what it is given, and how many nodes and actors the Ray has that it is told of.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the extra `ray` is not installed")

from autosteer_lib.provenance import repository_root

SECONDS = 180  # two nodes of Ray on a busy machine
PATIENCE = 30  # seconds until steps are killed; Ray's head takes 15 to end
JOB = 70_000 + os.getpid() % 10_000

SCONTROL = """#!/bin/bash
[ "$*" = "show hostnames cluster[1-2]" ] || { echo "scontrol $*?" >&2; exit 2; }
echo cluster1; echo cluster2
"""
SRUN = """#!/bin/bash
echo "$@" >> "$STEPS"
NODES= TASKS= WHERE=
while [ "${1#--}" != "$1" ]; do
    case $1 in
        --nodes=*) NODES=${1#*=} ;; --ntasks=*) TASKS=${1#*=} ;; --overlap) ;;
        --nodelist=cluster1|--exclude=cluster1) WHERE=$1 ;;
        *) echo "srun $1?" >&2; exit 2 ;;
    esac
    shift
done
[ "$NODES" = 1 ] && [ "$TASKS" = 1 ] && [ -n "$WHERE" ] || { echo "srun: where?" >&2; exit 2; }
[ "$1" = hostname ] && { echo "127.0.0.1 192.0.2.1"; exit; }
exec "$@"
"""
MAKE = f"""#!/bin/bash
echo "$@" > "$MADE"
ADDRESS=${{2#RAY_ADDRESS=}}
exec {sys.executable} - "$ADDRESS" >> "$MADE" <<'PYTHON'
import sys
from autosteer_lib.scale_out.cluster import Cluster, connect, import_ray
cluster = Cluster(address=sys.argv[1])
connect(cluster)
print(len(import_ray().nodes()), cluster.size({{"CPU": 1.0}}), cluster.size({{"CPU": 2.0}}))
PYTHON
"""


@pytest.fixture
def allocation(tmp_path: Path) -> dict[str, str]:
    """The environment of a batch script, in a checkout of its own."""
    commands = tmp_path / "commands"
    commands.mkdir()
    for name, text in {"scontrol": SCONTROL, "srun": SRUN, "make": MAKE}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    # as any Ray of one machine leaves it behind; that of a job must not depend on it
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("f" * 64)
    (tmp_path / "autosteer_lib").symlink_to(repository_root() / "autosteer_lib")
    return {
        **os.environ,
        "HOME": str(tmp_path),
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "STEPS": str(tmp_path / "steps"), "MADE": str(tmp_path / "made"),
        "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": str(JOB), "SLURM_JOB_NODELIST": "cluster[1-2]",
        "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "2", "SLURM_GPUS_ON_NODE": "0",
        "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(100 * 2**20),
    }  # fmt: skip


def end_steps(job: subprocess.Popen[bytes]) -> None:
    """As SLURM does: asked first, killed after a while."""
    with contextlib.suppress(ProcessLookupError):  # none is left
        os.killpg(job.pid, signal.SIGTERM)
        job.wait()
        for _ in range(PATIENCE):
            os.killpg(job.pid, 0)
            time.sleep(1)
        os.killpg(job.pid, signal.SIGKILL)


def submitted(allocation: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script to its end, then end its steps as SLURM does."""
    script = repository_root() / "autosteer_lib" / "scale_out" / "slurm.sh"
    said = [Path(allocation["SLURM_SUBMIT_DIR"]) / name for name in ("out", "err")]
    with said[0].open("w") as out, said[1].open("w") as err:
        job = subprocess.Popen(
            ["bash", str(script), *arguments], env=allocation, start_new_session=True, stdout=out, stderr=err
        )
        try:
            code = job.wait(SECONDS)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            end_steps(job)
            shutil.rmtree(f"/tmp/ray-{JOB}", ignore_errors=True)  # where the script has its Ray write
    output, errors = (path.read_text() for path in said)
    return subprocess.CompletedProcess(job.args, code, output, errors)


def test_all_nodes_are_up_before_make_is_told_of_them(allocation: dict[str, str]) -> None:
    job = submitted(allocation, "PROFILE=paper", "ARGS=--force")
    assert job.returncode == 0, job.stdout + job.stderr
    address = f"127.0.0.1:{20_000 + JOB % 20_000}"
    told, found = Path(allocation["MADE"]).read_text().splitlines()
    assert told == f"reproduce RAY_ADDRESS={address} PROFILE=paper ARGS=--force"
    assert found == "2 4 2"  # nodes, and actors of one core and of two
    assert f"Ray at {address}: 2 of 2 nodes" in job.stdout
    asked, *steps = Path(allocation["STEPS"]).read_text().splitlines()
    others, head = sorted(steps, key=lambda step: "--head" in step)  # they start side by side
    assert asked.endswith("hostname --ip-address")
    assert {"--nodelist=cluster1", "--head", "--num-cpus=2"} <= set(head.split())
    assert {"--exclude=cluster1", f"--address={address}"} <= set(others.split())


def test_of_several_cards_the_first_is_kept_for_the_notebooks(allocation: dict[str, str]) -> None:
    """No card is here, so Ray is not started: what it would have been told is read."""
    (Path(allocation["SLURM_SUBMIT_DIR"]) / ".venv").unlink()
    tools = Path(allocation["SLURM_SUBMIT_DIR"]) / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name, says in {"ray": 'echo "$CUDA_VISIBLE_DEVICES: $@" >> "$STEPS"', "python": "echo 2"}.items():
        (tools / name).write_text(f"#!/bin/bash\n{says}\n")
        (tools / name).chmod(0o755)
    make = Path(allocation["SLURM_SUBMIT_DIR"]) / "commands" / "make"
    make.write_text("#!/bin/bash\nsleep 2\n")
    job = submitted({**allocation, "SLURM_GPUS_ON_NODE": "4", "CUDA_VISIBLE_DEVICES": "4,5,6,7"})
    assert job.returncode == 0, job.stdout + job.stderr
    started = {line.split(":")[0]: line for line in Path(allocation["STEPS"]).read_text().splitlines()}
    assert "--num-gpus=3" in started["5,6,7"]
    assert "--num-gpus=4" in started["4,5,6,7"]


def test_without_a_setup_it_says_so(allocation: dict[str, str]) -> None:
    (Path(allocation["SLURM_SUBMIT_DIR"]) / ".venv").unlink()
    job = submitted(allocation)
    assert job.returncode == 2
    assert "run `make setup` first, and sbatch from the checkout" in job.stderr
