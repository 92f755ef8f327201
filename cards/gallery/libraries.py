"""The JavaScript that the site is made with, out of Python packages: no page asks the network."""

import re
from importlib.metadata import version
from importlib.resources import files

from splitrun.errors import DependencyError

_EXPORTS = re.compile(r"export\s*\{([^}]*)\}\s*;?")


def libraries() -> dict[str, str]:
    """Return the files of Plotly and of DataTables, by the names that pages give them.

    Raises:
        DependencyError: A package is not installed.
    """
    try:
        plotly = files("plotly") / "package_data" / "plotly.min.js"
        tables = files("itables") / "html"
        return {
            "plotly.js": plotly.read_text(encoding="utf-8"),
            "datatables.js": _as_script((tables / "dt_bundle.js").read_text(encoding="utf-8")),
            "datatables.css": (tables / "dt_bundle.css").read_text(encoding="utf-8"),
            "NOTICE.txt": f"plotly.js is of plotly {version('plotly')}, DataTables of itables "
            f"{version('itables')}; both, and jQuery within, are under the MIT licence.\n",
        }
    except (ModuleNotFoundError, OSError) as error:
        raise DependencyError(
            f"The gallery needs Plotly's and DataTables' JavaScript: {error}.",
            next_step="pip install 'splitzoo[gallery]'",
        ) from error


def _as_script(module: str) -> str:
    """Turn a module into a script: browsers load no module from a file.

    Raises:
        DependencyError: The module does not end as it is known to.
    """
    exported = list(_EXPORTS.finditer(module))
    if not exported:
        raise DependencyError("This version of itables has another bundle of DataTables.")
    last = exported[-1]
    pairs = (pair.split(" as ") for pair in last[1].split(","))
    named = ",".join(f'"{names[-1].strip()}":{names[0].strip()}' for names in pairs)
    code = module[: last.start()] + f"globalThis.dataTables={{{named}}};" + module[last.end() :]
    return f"(()=>{{{code}\n}})();\n"
