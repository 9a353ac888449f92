"""Files of a run folder, on local disk or on an object store, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trainables import scratch
from trainables.errors import InvalidInput, Problem
from trainables.patience import Patience
from trainables.scratch import process_lives

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

TEMPORARY = ".tmp"
"""Folder, below the root, of files that are not yet in place, and of what a sweep needs."""
MARK = "mark"
"""What a sweep leaves in its folder there before its first trial."""

T = TypeVar("T")


def mask(text: str) -> str:
    """A URI, or a text that holds one, without user, password or token."""
    # A secret that was not quoted may hold a slash; what follows a port is a path.
    user = r"(?:[^/@\s]*|[^/@:\s]*:(?!\d+[/?#])[^@\s]*)@"
    hidden = re.sub(f"://{user}", "://***@", text)
    return re.sub(r"(?i)((?:password|token|secret|access_key)[^=&\s]*=)[^&\s]*", r"\1***", hidden)


class StoreUnreachable(RuntimeError):
    """The object store of a run folder does not answer, or refuses; the message says why.

    It is not the user's text that is wrong, and nothing can be done until the store is there.
    """


class Store:
    """A root folder given by a local path or a URI that pyarrow knows (`s3://…`, `gs://…`).

    Paths are relative to the root, with `/`. A write is atomic: readers see the old content, the
    new content, or nothing. An object store that does not answer is waited for `patience` seconds.
    """

    def __init__(self, root: str | Path, patience: float = 0.0) -> None:
        from pyarrow import fs

        self._patience = Patience(patience)
        self.uri = str(root) if "://" in str(root) else str(Path(root).absolute())
        try:
            self._files, self._root = fs.FileSystem.from_uri(self.uri)
        except (ValueError, OSError, NotImplementedError) as error:
            rule = f"cannot be opened as a run folder: {mask(' '.join(str(error).split()))}"
            raise InvalidInput([Problem("--runs", rule, self.shown)]) from None
        self.local: Path | None = None
        if isinstance(self._files, fs.LocalFileSystem):
            self.local = Path(self._root)
            self._no_file()
        elif not self._bucket:
            raise self._no_bucket()

    @property
    def shown(self) -> str:
        """The root as it may be shown: without what gives access to it."""
        return mask(self.uri)

    @property
    def files(self) -> FileSystem:
        """The file system below, for libraries that read from one."""
        return self._files

    def path(self, path: str) -> str:
        """The full path of `path` within the file system."""
        return f"{self._root.rstrip('/')}/{path}"

    def uri_of(self, path: str) -> str:
        """The local path or URI of `path`, in the form in which the root was given."""
        if self.local is not None:
            return f"{self.uri}/{path}"
        root, mark, query = self.uri.partition("?")
        return f"{root.rstrip('/')}/{path}{mark}{query}"

    def read(self, path: str) -> bytes | None:
        """The content of a file, or None when it does not exist."""

        def read() -> bytes:
            while True:
                with self._files.open_input_stream(self.path(path)) as stream:
                    content: bytes = stream.read()
                # An object store is asked for the length first; what replaces the file in between
                # comes cut to it.
                if self.local or self._files.get_file_info(self.path(path)).size == len(content):
                    return content

        try:
            return self._ask(read)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, path: str, content: bytes) -> None:
        """Put `content` at `path` in one step."""
        if self.local is None:
            with self._putting():
                self._ask(lambda: self._put(path, content))
            return
        target = self.local / path
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = self.scratch() / target.name
        draft.parent.mkdir(parents=True)
        try:
            with draft.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            draft.replace(target)
        finally:
            shutil.rmtree(draft.parent, ignore_errors=True)

    def _put(self, path: str, content: bytes) -> None:
        with self._files.open_output_stream(self.path(path)) as stream:
            stream.write(content)

    def scratch(self) -> Path:
        """A fresh path on local disk, not yet created; beside the root when the root is local."""
        return self.local / TEMPORARY / scratch.own_name() if self.local else scratch.fresh()

    def sweep_scratch(self) -> None:
        """Remove what processes of this host that no longer live left half-written."""
        scratch.sweep()
        for path in self.abandoned():
            if self.local is None:
                self.delete(path)
            else:
                shutil.rmtree(self.local / path, ignore_errors=True)

    def abandoned(self) -> list[str]:
        """The scratch, below the root, of processes of this host that no longer live."""
        mine = f"{scratch.host()}."
        names = [name for name in self.children(TEMPORARY) if name.startswith(mine)]
        return [f"{TEMPORARY}/{name}" for name in names if not process_lives(name)]

    def publish(self, folder: Path, path: str) -> None:
        """Move a local folder to `path`, replacing what stands there."""
        from pyarrow import fs

        if self.local is None:
            self.delete(path)
            place = self.path(path)
            self._ask(lambda: fs.copy_files(str(folder), place, destination_filesystem=self._files))
            shutil.rmtree(folder)
            return
        target = self.local / path
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = self.scratch()
        draft.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, draft)
        if target.exists():
            old = self.scratch()
            target.rename(old)
            draft.rename(target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            draft.rename(target)

    def fetch(self, path: str, copy: Path) -> Path | None:
        """A local folder with the files of `path`, or None when it is absent.

        On local disk this is the folder itself; elsewhere it is `copy`, which the caller removes.
        """
        from pyarrow import fs

        if not self.exists(path):
            return None
        if self.local is not None:
            return self.local / path
        copy.mkdir(parents=True)
        place = self.path(path)
        self._ask(lambda: fs.copy_files(place, str(copy), source_filesystem=self._files))
        return copy

    def exists(self, path: str) -> bool:
        """Whether a file or folder stands at `path`."""
        from pyarrow import fs

        return bool(self._info(path).type != fs.FileType.NotFound)

    def modified(self, path: str) -> float | None:
        """When the file was written, in Unix seconds by the store's clock; None when absent."""
        when: float | None = self._info(path).mtime_ns
        return None if when is None else when / 1e9

    def touch(self, path: str) -> None:
        """Make an empty file, which may exist, as fresh as if it were written now."""
        if self.local is None or not (self.local / path).exists():
            self.write(path, b"")
        else:
            os.utime(self.local / path)

    def children(self, path: str) -> Iterator[str]:
        """Names of the files and folders directly below `path`, sorted."""
        from pyarrow import fs

        selector = fs.FileSelector(self.path(path), allow_not_found=True)
        found = self._ask(lambda: self._files.get_file_info(selector))
        yield from sorted(info.base_name for info in found)

    def size(self, path: str) -> int:
        """Bytes of a file, or of all files below a folder; 0 when absent."""
        from pyarrow import fs

        if self._info(path).type == fs.FileType.File:
            return int(self._info(path).size)
        selector = fs.FileSelector(self.path(path), allow_not_found=True, recursive=True)
        found = self._ask(lambda: self._files.get_file_info(selector))
        return sum(info.size or 0 for info in found)

    def delete(self, path: str) -> None:
        """Remove a file or a folder; nothing happens when it is absent."""
        from pyarrow import fs

        kind = self._info(path).type
        with contextlib.suppress(FileNotFoundError):
            if kind == fs.FileType.Directory:
                self._ask(lambda: self._files.delete_dir(self.path(path)))
            elif kind == fs.FileType.File:
                self._ask(lambda: self._files.delete_file(self.path(path)))

    def require(self) -> None:
        """Raise StoreUnreachable when the root's object store does not answer at once, InvalidInput
        when it has no such bucket."""
        from pyarrow import fs

        if self.local is not None:
            return
        with self.reaching():
            found = self._files.get_file_info(self._bucket)
        if found.type == fs.FileType.NotFound:
            raise self._no_bucket()

    def _no_file(self) -> None:
        """Raises InvalidInput when the root, or a folder that it lies in, is a plain file."""
        root = Path(self._root)
        try:
            found = next((place for place in (root, *root.parents) if place.exists()), root)
            wrong = found.exists() and not found.is_dir()
        except OSError as error:
            rule = f"cannot be opened as a run folder: {error.strerror}"
            raise InvalidInput([Problem("--runs", rule, self.shown)]) from None
        if wrong:
            rule = "must be a folder, and " + ("is" if found == root else f"{found} is") + " a file"
            near = str(found.with_name("runs"))
            raise InvalidInput([Problem("--runs", rule, self.shown, near)])

    @property
    def _bucket(self) -> str:
        return str(self._root).partition("/")[0]

    def _no_bucket(self) -> InvalidInput:
        rule = "names no bucket"
        if self._bucket:
            rule += f" that there is; make {self._bucket} first, or name another"
        return InvalidInput([Problem("--runs", rule, self.shown)])

    def _info(self, path: str) -> Any:
        return self._ask(lambda: self._files.get_file_info(self.path(path)))

    def _ask(self, call: Callable[[], T]) -> T:
        """What the call returns, which may be made again."""
        if self.local is not None:
            return call()
        with self.reaching():
            return self._patience.ask(call)

    def failure(self, error: BaseException | None) -> StoreUnreachable | None:
        """The failure of this object store that `error` came of, if it did."""
        while error is not None and self.local is None:
            if isinstance(error, StoreUnreachable):
                return error
            # What the system says has a number; what pyarrow says of a store has none.
            if isinstance(error, OSError) and error.errno is None:
                return self._unreachable(error)
            error = error.__cause__ or error.__context__
        return None

    def _unreachable(self, error: OSError) -> StoreUnreachable:
        return StoreUnreachable(f"{self.shown} cannot be reached: {mask(str(error))}")

    @contextlib.contextmanager
    def _putting(self) -> Iterator[None]:
        """As `reaching`, around what makes files: in an object store only a bucket can lack."""
        try:
            with self.reaching():
                yield
        except FileNotFoundError:
            raise self._no_bucket() from None

    @contextlib.contextmanager
    def reaching(self) -> Iterator[None]:
        """Errors of an object store, which name neither it nor a cause one can act on, reworded."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            if self.local is not None:
                raise
            raise self._unreachable(error) from error
