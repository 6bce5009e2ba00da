"""The link that an instructor hands out: it pulls the course into a student's home on a hub and opens a page.

    python deploy/link.py https://hub.example.edu
    python deploy/link.py https://hub.example.edu --page 05_quantization --branch spring

On the hub, nbgitpuller keeps what a student changed and adds what is new.
"""

import argparse
import sys
from urllib.parse import quote, urlencode

from lab_utils.errors import LabError, command_line
from lab_utils.folders import NOTEBOOKS
from lab_utils.notebook.badges import repository


def link(hub: str, *, page: str = "00_start_here", branch: str = "main", address: str | None = None) -> str:
    """nbgitpuller's link for a page.

    Parameters
    ----------
    hub : str, the hub's address, with its base path if it has one
    page : str, a notebook's name without its ending
    branch : str
    address : str, of the repository, without a slash at its end; default: the one in pyproject.toml

    Returns
    -------
    str

    Raises
    ------
    LabError
        `hub` is not an address.
    """
    if not hub.startswith(("http://", "https://")):
        raise LabError(f"{hub!r} is not the address of a hub: an address begins with https://")
    address = address or repository()
    folder = address.rpartition("/")[2]  # where nbgitpuller puts the course
    path = quote(f"lab/tree/{folder}/notebooks/{page}.ipynb")
    query = {"repo": address, "branch": branch, "urlpath": path, "depth": 1}
    return f"{hub.rstrip('/')}/hub/user-redirect/git-pull?{urlencode(query)}"


@command_line
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hub", help="the hub's address")
    pages = [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    parser.add_argument("--page", default="00_start_here", choices=pages)
    parser.add_argument("--branch", default="main")
    arguments = parser.parse_args()
    print(link(arguments.hub, page=arguments.page, branch=arguments.branch))
    return 0


if __name__ == "__main__":
    sys.exit(main())
