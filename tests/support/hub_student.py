"""One student of a JupyterHub, played through its real interfaces: login form, hub and contents API, websocket."""

import asyncio
import json
import time
import uuid
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from urllib.parse import urlencode

import nbformat
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

OUTPUTS = ("stream", "display_data", "execute_result", "error")
SAVE_EVERY = 8  # cells


class KernelDied(Exception):
    """The server said that the kernel died and is being restarted."""


@dataclass
class Student:
    """A student at a hub; `client` is the AsyncHTTPClient that all of a class share."""

    hub_url: str
    name: str
    client: AsyncHTTPClient
    token: str = ""
    saved: dict = field(default_factory=dict)  # page -> the notebook as it was last saved

    async def _ask(self, method: str, address: str, body=None, headers=None, **options):
        """One request; JSON in, the response out."""
        headers = {"Authorization": f"token {self.token}"} if headers is None else headers
        if body is not None and not isinstance(body, str):
            body = json.dumps(body)
        options = {"allow_nonstandard_methods": True, "request_timeout": 120, **options}
        request = HTTPRequest(self.hub_url + address, method, headers, body, **options)
        return await self.client.fetch(request, raise_error="follow_redirects" not in options)

    async def _api(self, method: str, path: str, body=None):
        """The student's own Jupyter server; returns the parsed answer."""
        response = await self._ask(method, f"/user/{self.name}/api/{path}", body)
        return json.loads(response.body) if response.body else None

    async def log_in(self, password: str = "") -> None:
        """The form that a browser shows, then the user's token."""
        form = await self._ask("GET", "/hub/login", headers={}, follow_redirects=False)
        cookies = SimpleCookie("; ".join(form.headers.get_list("Set-Cookie")))
        xsrf = cookies["_xsrf"].value
        answer = await self._ask(
            "POST", "/hub/login", urlencode({"username": self.name, "password": password, "_xsrf": xsrf}),
            {"Cookie": "; ".join(f"{key}={morsel.value}" for key, morsel in cookies.items()),
             "Content-Type": "application/x-www-form-urlencoded"},
            follow_redirects=False,
        )  # fmt: skip
        assert answer.code == 302, f"{self.name} could not log in: {answer.code} {answer.reason}"
        login = {"auth": {"username": self.name, "password": password}}
        response = await self._ask("POST", f"/hub/api/users/{self.name}/tokens", login, headers={})
        self.token = json.loads(response.body)["token"]

    async def start_server(self, seconds: float = 180) -> None:
        """Ask the hub for a server and wait until it answers; ask again when it could not start, as people do.

        The hub chooses a port and the server takes it seconds later: in between another process may have taken it.
        """
        user = {"servers": {}}
        try:
            async with asyncio.timeout(seconds):
                while not user["servers"].get("", {}).get("ready"):
                    if not user["servers"].get("", {}).get("pending"):
                        # A refusal is not an error here: the loop sees what became of it.
                        await self._ask("POST", f"/hub/api/users/{self.name}/server", "", follow_redirects=False)
                    await asyncio.sleep(0.3)
                    user = json.loads((await self._ask("GET", f"/hub/api/users/{self.name}")).body)
        except TimeoutError:
            raise AssertionError(f"{self.name} got no server in {seconds} s; the hub says {user['servers']}") from None

    async def load(self, page: str):
        """A page as it lies on the server's disk now."""
        return nbformat.from_dict((await self._api("GET", f"contents/{page}?content=1"))["content"])

    async def save(self, page: str, notebook) -> None:
        """Save a page, as JupyterLab does every two minutes and on Ctrl-S."""
        await self._api("PUT", f"contents/{page}", {"type": "notebook", "format": "json", "content": notebook})
        self.saved[page] = json.dumps(notebook)

    async def open_kernel(self, page: str) -> "Kernel":
        """Open a page: its session, its kernel, the kernel's websocket."""
        session = {"path": page, "name": page, "type": "notebook", "kernel": {"name": "python3"}}
        identifier = (await self._api("POST", "sessions", session))["kernel"]["id"]
        address = f"ws{self.hub_url.removeprefix('http')}/user/{self.name}/api/kernels/{identifier}/channels"
        # The server answers once the kernel does: late, where all of a class start theirs together.
        options = {"connect_timeout": 60, "request_timeout": 180}
        request = HTTPRequest(address, headers={"Authorization": f"token {self.token}"}, **options)
        return Kernel(identifier, await websocket_connect(request, max_message_size=2**28))

    async def run(self, page: str, kernel: "Kernel", notebook=None, on_busy=None) -> list[str]:
        """Run a page from its first cell to its last, saving now and then; returns the errors that its cells showed.

        `on_busy(number)` is called when code cell `number` (from 0) has begun to run; KernelDied if the kernel did.
        """
        notebook = notebook or await self.load(page)
        errors = []
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for number, cell in enumerate(code):
            cell.outputs, cell.execution_count = await kernel.execute(
                cell.source, lambda number=number: on_busy(number) if on_busy else None
            )
            errors += [f"{one.ename}: {one.evalue}" for one in cell.outputs if one.output_type == "error"]
            if number % SAVE_EVERY == SAVE_EVERY - 1 or cell is code[-1]:
                await self.save(page, notebook)
        return errors


@dataclass
class Kernel:
    """A kernel behind the server's websocket, in Jupyter's messages."""

    identifier: str
    socket: object
    session: str = field(default_factory=lambda: uuid.uuid4().hex)

    async def _send(self, kind: str, content: dict) -> str:
        """Send a request on the shell channel; returns its message id."""
        identifier = uuid.uuid4().hex
        header = {"msg_id": identifier, "msg_type": kind, "session": self.session, "username": "", "version": "5.3"}
        message = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
        await self.socket.write_message(json.dumps(message))
        return identifier

    async def _message(self, end: float) -> dict:
        """The next message before `end` (of time.monotonic); one with binary parts, an explorer's, is passed over."""
        while True:
            text = await asyncio.wait_for(self.socket.read_message(), end - time.monotonic())
            if text is None:
                raise ConnectionError("the kernel's websocket was closed")
            if isinstance(text, str):
                return json.loads(text)

    async def execute(self, source: str, on_busy=None, seconds: float = 300) -> tuple[list, int | None]:
        """Run a cell; returns (outputs, execution count). Raises KernelDied when the server restarts the kernel."""
        request = await self._send("execute_request", {"code": source, "silent": False, "stop_on_error": True})
        outputs, count, idle, end = [], None, False, time.monotonic() + seconds
        while not (idle and count is not None):
            message = await self._message(end)
            kind, content = message["msg_type"], message["content"]
            state = content.get("execution_state") if kind == "status" else None
            if state in ("restarting", "dead"):
                raise KernelDied(state)
            if message["parent_header"].get("msg_id") != request:
                continue
            if state == "busy" and on_busy:
                on_busy()
            elif kind in OUTPUTS:
                outputs.append(nbformat.v4.output_from_msg(message))
            elif kind == "execute_reply":
                count = content["execution_count"]
            idle |= state == "idle"
        return outputs, count

    async def value(self, expression: str) -> str:
        """What an expression is in the kernel, as its repr; waits until a restarted kernel answers."""
        question = {"code": "", "silent": True, "user_expressions": {"value": expression}}
        while True:
            request, end = await self._send("execute_request", question), time.monotonic() + 5
            answered = ("", "")
            try:
                while answered != ("execute_reply", request):
                    message = await self._message(end)
                    answered = (message["msg_type"], message["parent_header"].get("msg_id"))
            except TimeoutError:
                continue  # the kernel was not up yet and the request was lost
            if message["content"]["status"] == "ok":
                return message["content"]["user_expressions"]["value"]["data"]["text/plain"]
