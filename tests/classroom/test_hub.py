"""Three students at once at a real JupyterHub, two of whose kernels die; and what deploy/ says holds together."""

import asyncio
import json
import re
import runpy
import subprocess
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import class_of
import nbformat
import psutil
import pytest
import yaml
from hub_server import serve
from jupyterhub.traitlets import ByteSpecification
from servers import free_ports, wait_until_up
from tornado.httpclient import HTTPRequest
from tornado.web import Application
from tornado.websocket import WebSocketHandler, websocket_connect
from traitlets.config import Config

from lab_utils.folders import ROOT

DEPLOY = ROOT / "deploy"
GIB = 2**30
# What the chart's values.schema.yaml offers at the levels that ours uses; helm refuses other names.
CHART = {
    "": "enabled fullnameOverride nameOverride imagePullSecret imagePullSecrets hub proxy singleuser scheduling "
    "ingress prePuller custom cull debug rbac global",
    "singleuser": "networkPolicy podNameTemplate cpu memory image initContainers profileList extraFiles extraEnv "
    "nodeSelector extraTolerations extraNodeAffinity extraPodAffinity extraPodAntiAffinity cloudMetadata cmd "
    "defaultUrl events extraAnnotations extraContainers extraLabels extraPodConfig extraResource fsGid lifecycleHooks "
    "networkTools serviceAccountName startTimeout storage allowPrivilegeEscalation uid",
    "singleuser.cpu": "limit guarantee",
    "singleuser.memory": "limit guarantee",
    "singleuser.image": "name tag pullPolicy pullSecrets",
    "singleuser.storage": "capacity dynamic extraLabels extraVolumeMounts extraVolumes homeMountPath static type",
    "cull": "enabled users adminUsers removeNamedServers timeout every concurrency maxAge",
}
TLJH = {  # what tljh-config takes, of its documentation
    "limits.memory", "limits.cpu", "services.cull.timeout", "services.cull.every", "services.cull.max_age",
    "services.cull.users", "services.cull.concurrency", "services.cull.enabled", "user_environment.default_app",
}  # fmt: skip
VALUES = yaml.safe_load((DEPLOY / "values.yaml").read_text(encoding="utf-8"))
SCRIPT = (DEPLOY / "tljh.sh").read_text(encoding="utf-8")
SET = dict(re.findall(r"^tljh-config set (\S+) (\S+)$", SCRIPT, flags=re.M))
MEASURED = json.loads((DEPLOY / "measured.json").read_text(encoding="utf-8"))


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    """The class of `python tests/support/class_of.py`, three of its ten students, two of whom lose a kernel.

    Each takes under 1 GiB.
    """
    assert psutil.virtual_memory().available >= 3 * GIB, "a class of three needs 3 GiB of free memory"
    names = class_of.NAMES[:3]
    folder = tmp_path_factory.mktemp("hub")
    with serve(folder, {"HF_HUB_OFFLINE": "1"}) as hub:
        kills = {names[1]: "01", names[2]: "05"}
        reports = asyncio.run(class_of.play(hub, names, ["01", "05"], kills, stagger=0.5))
        family = [hub.process, *hub.process.children(recursive=True)]
    return SimpleNamespace(reports=reports, kills=kills, folder=folder, family=family)


@pytest.mark.notebook
def test_everyone_finishes_both_pages(lesson):
    assert {report.name: report.errors for report in lesson.reports if report.errors} == {}
    for report in lesson.reports:
        assert [Path(page).name[:2] for page in report.finished] == ["01", "05"], report
        for page in report.finished:
            saved = nbformat.read(lesson.folder / "homes" / report.name / page, as_version=4)
            source = nbformat.read(ROOT / "notebooks" / Path(page).name, as_version=4)
            assert [cell.source for cell in saved.cells[1:]] == [cell.source for cell in source.cells]
            assert saved.cells[0].source.startswith(f"Notes of {report.name}")
            assert all(cell.execution_count for cell in saved.cells if cell.cell_type == "code" and cell.source)


@pytest.mark.notebook
def test_a_killed_kernel_costs_nothing_that_was_saved(lesson):
    cut = {report.name: report.killed for report in lesson.reports if report.killed}
    assert {name: [Path(page).name[:2] for page in killed] for name, killed in cut.items()} == {
        name: [number] for name, number in lesson.kills.items()
    }
    for (found,) in (killed.values() for killed in cut.values()):
        assert found["saved outputs"] > 0 and found["same file"] and found["fresh kernel"]


@pytest.mark.notebook
def test_a_student_takes_what_is_recorded(lesson):
    for report in lesson.reports:
        print(report.name, f"{report.server_mib:.0f} MiB server,", {k: round(v) for k, v in report.kernels_mib.items()})
    sums = [report.server_mib + sum(report.kernels_mib.values()) for report in lesson.reports]
    recorded = MEASURED["server_mib"] + sum(MEASURED["class_kernels_mib"].values())
    print(f"a student takes {max(sums):.0f} MiB, recorded {recorded} MiB")
    assert max(sums) < 1.3 * recorded  # fewer students share fewer pages


@pytest.mark.notebook
def test_all_share_one_model_and_nothing_is_left_running(lesson):
    assert list((lesson.folder / "homes").glob("*/.cache/lora-lab")) == []
    assert len(lesson.family) >= 2 + 3 * len(lesson.reports)  # hub, proxy; a server and two kernels each
    assert alive(lesson.family) == []


def test_a_hub_ends_with_all_its_processes_when_a_test_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), serve(tmp_path) as hub:
        family = [hub.process, *hub.process.children(recursive=True)]
        assert len(alive(family)) >= 2
        raise ZeroDivisionError
    assert alive(family) == []


def test_a_hub_without_a_model_says_why_it_does_not_start(tmp_path):
    settings = {"LORA_LAB_CACHE": str(tmp_path / "empty"), "LORA_LAB_WHEEL": str(tmp_path / "no.whl")}
    with pytest.raises(RuntimeError, match=r"The hub was not started: There is no wheel at .*no\.whl"), serve(
        tmp_path, settings
    ):
        pass


def mib_of(text: str) -> float:
    """As JupyterHub, its spawners and systemd read it: G is 2**30 bytes."""
    return ByteSpecification().validate(None, text) / 2**20


def test_limits_hold_what_was_measured():
    peaks, left = MEASURED["peaks_mib"], MEASURED["left_open_mib"]
    assert sorted(peaks) == sorted(left) == [f"{number:02}" for number in range(9)]
    one_page = MEASURED["server_mib"] + max(peak for page, peak in peaks.items() if page < "08")
    training = MEASURED["server_mib"] + peaks["08"] + max(mib for page, mib in left.items() if page < "08")
    memory, cpu = VALUES["singleuser"]["memory"], VALUES["singleuser"]["cpu"]
    guarantee, limit, tljh = (mib_of(text) for text in (memory["guarantee"], memory["limit"], SET["limits.memory"]))
    assert one_page < guarantee <= limit and one_page < training < min(limit, tljh)
    assert 0 < cpu["guarantee"] <= cpu["limit"] == int(SET["limits.cpu"])


def test_readme_tells_what_was_measured():
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    assert MEASURED["date"] in text and MEASURED["cpu"] in text
    rows = re.findall(r"^\| (.+?) \| ([\d,]+) \| ([\d,]*)", text, re.M)
    told = {name: (int(first.replace(",", "")), second.replace(",", "")) for name, first, second in rows}
    assert told["single-user server"][0] == MEASURED["server_mib"]
    for page, mib in MEASURED["class_kernels_mib"].items():
        assert told[f"kernel of page {page}"] == (mib, str(MEASURED["cpu_seconds"][page]))
    for page, mib in MEASURED["peaks_mib"].items():
        assert told[f"page {page}"] == (mib, str(MEASURED["left_open_mib"][page]))


@pytest.mark.parametrize("file", ["deploy/README.md", "notebooks/INSTRUCTORS.md"])
def test_what_a_class_takes_is_multiplied_from_it(file):
    server, peaks, kernels = (MEASURED[part] for part in ("server_mib", "peaks_mib", "class_kernels_mib"))
    one = {"01 to 06": server + sum(kernels.values()), "page 00": server + peaks["00"], "page 08": server + peaks["08"]}
    text = (ROOT / file).read_text(encoding="utf-8")
    rows = re.findall(r"^\| (memory, .+?) \| (\d+) GiB \| (\d+) GiB \|$", text, re.M)
    assert len(rows) >= 2
    for name, *told in rows:
        [mib] = [mib for part, mib in one.items() if part in name]
        assert [int(gib) for gib in told] == [round(students * mib / 1024) for students in (30, 200)], name


def test_the_proxy_waits_for_a_kernel_that_is_slow_to_start(tmp_path, monkeypatch):
    """A page's websocket opens once its kernel answers. Left to itself, the proxy waits 20 s for that."""
    monkeypatch.setenv("LORA_LAB_HUB_FOLDER", str(tmp_path))
    c = Config()
    runpy.run_path(DEPLOY / "jupyterhub_config.py", {"get_config": lambda: c})
    inner, public, api = free_ports(3)
    command = [
        *c.ConfigurableHTTPProxy.command, "--ip=127.0.0.1", f"--port={public}", "--api-ip=127.0.0.1",
        f"--api-port={api}", f"--default-target=http://127.0.0.1:{inner}",
    ]  # fmt: skip

    class Slow(WebSocketHandler):
        async def prepare(self):
            await asyncio.sleep(21)

        def open(self):
            self.write_message("here")

    async def connect() -> str:
        Application([(".*", Slow)]).listen(inner, "127.0.0.1")
        request = HTTPRequest(f"ws://127.0.0.1:{public}/", request_timeout=90)
        return await (await websocket_connect(request)).read_message()

    with open(tmp_path / "proxy.log", "wb") as log:
        proxy = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until_up(f"http://127.0.0.1:{public}/_chp_healthz", proxy, tmp_path / "proxy.log", 60)
        assert asyncio.run(connect()) == "here"
    finally:
        proxy.kill()
        proxy.wait()


def test_servers_get_as_many_threads_as_cores():
    """torch counts the machine's cores: without this, each of many students starts a thread for every core."""
    c = Config()
    runpy.run_path(DEPLOY / "tljh_config.py", {"get_config": lambda: c})
    settings = c.Spawner.environment.get_value({})
    for environment in (settings, VALUES["singleuser"]["extraEnv"]):
        assert environment["OMP_NUM_THREADS"] == environment["LORA_LAB_THREADS"] == SET["limits.cpu"]
        assert all(isinstance(value, str) for value in environment.values())
    assert f"cache={settings['LORA_LAB_CACHE']}\n" in SCRIPT and "/deploy/tljh_config.py" in SCRIPT
    assert c.SystemdSpawner.unit_extra_properties.get_value({}) == {"OOMPolicy": "continue"}


def test_the_cache_is_mounted_read_only_where_it_was_filled():
    claim, job = yaml.safe_load_all((DEPLOY / "model-volume.yaml").read_text(encoding="utf-8"))
    pod = job["spec"]["template"]["spec"]
    (filler,), (mount,) = pod["containers"], VALUES["singleuser"]["storage"]["extraVolumeMounts"]
    (volume,) = VALUES["singleuser"]["storage"]["extraVolumes"]
    assert mount["readOnly"] and volume["persistentVolumeClaim"]["readOnly"] and mount["name"] == volume["name"]
    names = {volume["persistentVolumeClaim"]["claimName"], pod["volumes"][0]["persistentVolumeClaim"]["claimName"]}
    assert names == {claim["metadata"]["name"]}
    image = VALUES["singleuser"]["image"]
    assert filler["image"] == f"{image['name']}:{image['tag']}"
    folder = {one["name"]: one["value"] for one in filler["env"]}["LORA_LAB_CACHE"]
    assert folder == mount["mountPath"] == filler["volumeMounts"][0]["mountPath"]
    assert folder == VALUES["singleuser"]["extraEnv"]["LORA_LAB_CACHE"]
    assert "readOnly" not in filler["volumeMounts"][0]


def test_every_name_is_one_that_the_projects_know():
    for level, names in CHART.items():
        found = VALUES
        for part in filter(None, level.split(".")):
            found = found[part]
        assert set(found) <= set(names.split()), level or "the top level"
    assert set(SET) <= TLJH and len(SET) == SCRIPT.count("tljh-config set ")
    assert subprocess.run(["bash", "-n", DEPLOY / "tljh.sh"]).returncode == 0


def test_the_link_pulls_the_course_and_opens_the_page():
    module = SimpleNamespace(**runpy.run_path(DEPLOY / "link.py"))
    course = "https://x.org/a/lab"
    made = urlsplit(module.link("https://hub.edu/", page="05_quantization", branch="spring", address=course))
    assert (made.netloc, made.path) == ("hub.edu", "/hub/user-redirect/git-pull")
    query = {key: value for key, (value,) in parse_qs(made.query).items()}
    page = "lab/tree/lab/notebooks/05_quantization.ipynb"
    assert query == {"repo": course, "branch": "spring", "urlpath": page, "depth": "1"}
    assert urlsplit(module.repository()).scheme == "https"
    assert parse_qs(urlsplit(module.link("https://hub.edu")).query)["repo"] == [module.repository()]
