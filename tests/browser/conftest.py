"""Headless Chromium and a JupyterLab, once for all browser tests."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from harness import PATIENCE, wait_for
from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium. Where there is none the tests are left out, and say so, unless CREATIVELIB_BROWSER=required."""
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        missing = f"Chromium is missing (none of {', '.join(NAMES)}): install it (Debian: apt-get install chromium)"
        (pytest.fail if os.environ.get("CREATIVELIB_BROWSER") == "required" else pytest.skip)(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(browser, tmp_path_factory):
    """JupyterLab with settings of its own, on a free port: its folder of notebooks, URL and token."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("notebooks")
    places = ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = os.environ | {name: str(home / name.lower()) for name in places}
    environment |= {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0", "--ServerApp.ip=127.0.0.1"]
    command += ["--expose-app-in-browser", f"--ServerApp.root_dir={folder}"]
    notifications = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    notifications.parent.mkdir(parents=True)
    notifications.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    with open(home / "log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)

    def facts():
        assert server.poll() is None, (home / "log").read_text()
        found = list((home / "jupyter_runtime_dir").glob("jpserver-*.json"))
        return found and found[0].read_text()

    try:
        yield {"folder": folder, **json.loads(wait_for(facts, "JupyterLab"))}
    finally:
        server.send_signal(signal.SIGTERM)  # it ends its kernels
        server.wait(60)


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1400, "height": 1200})
    page.set_default_timeout(PATIENCE * 1000)
    yield page
    page.close()
