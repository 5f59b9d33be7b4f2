"""Fixtures: a folder in memory, and a PostgreSQL server of our own from the system's packages, started once."""

import glob
import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa


def new_folder() -> Path:
    """In memory where there is one: thousands of syncs to a slow disk would only test the disk."""
    return Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))


@pytest.fixture
def memory_folder():
    folder = new_folder()
    yield folder
    shutil.rmtree(folder)


class Postgres:
    """A server on a free port of this machine, which can be stopped and started again."""

    def __init__(self, folder: Path, binaries: str):
        self.folder, self.binaries = folder, binaries
        self.user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []  # its programs refuse to run as root
        if self.user:
            shutil.chown(folder, "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._call("initdb", "-D", self.data, "-A", "trust", "-U", "study", "-E", "UTF8", "--locale=C")

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def _call(self, program: str, *words: str) -> None:
        subprocess.run([*self.user, f"{self.binaries}/{program}", *words], check=True, cwd="/", stdout=subprocess.DEVNULL)

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c max_connections=120"
        self._call("pg_ctl", "-D", self.data, "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-D", self.data, "-m", "immediate", "stop")

    def url(self, database: str, user: str = "study") -> str:
        return f"postgresql+psycopg://{user}@127.0.0.1:{self.port}/{database}"

    def create(self, connections: int | None = None) -> str:
        """The URL of a new, empty database; of an owner of its own who may open so many ``connections``, if that is given."""
        name = f"study_{uuid.uuid4().hex}"
        engine = sa.create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            if connections is not None:
                connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN CONNECTION LIMIT {connections}")
            connection.exec_driver_sql(f"CREATE DATABASE {name} OWNER {'study' if connections is None else name}")
        return self.url(name, "study" if connections is None else name)


@pytest.fixture(scope="session")
def postgres_server():
    binaries = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    if not binaries:
        missing = "PostgreSQL is not installed: apt-get install postgresql"
        (pytest.fail if os.environ.get("CREATIVELIB_POSTGRES") == "required" else pytest.skip)(missing)
    folder = new_folder()
    server = Postgres(folder, binaries[-1])
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def postgres(postgres_server):
    """The URL of an empty database."""
    return postgres_server.create()
