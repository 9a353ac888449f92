"""The Ray door: jobs in, ledger records out.

Ray Tune schedules the trials; the ledger, not Tune, remembers them. A one-worker trial runs inside
its Tune actor, and actors are reused; a trial with more workers is a small Tune function that
drives a Ray Train worker group.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ablate.run.capacity import Capacity, ClusterCannot, Nodes, worker_need
from ablate.run.events import INFRASTRUCTURE_RETRIES, Events, Watcher
from ablate.run.lease import Leases
from ablate.run.ledger import Ledger, Record
from ablate.run.quiet import quiet
from ablate.run.store import MARK, TEMPORARY, StoreUnreachable, mask
from ablate.run.supply import Further, Supply
from ablate.run.trial import Job, Resources, TakenOver, execute
from trainables.cpus import usable
from trainables.memory import uncollected
from trainables.patience import PATIENCE_SECONDS
from trainables.scratch import host

HEAD = "node:__internal_head__"
"""Ray's name of the resource that only the head node has."""
DRIVER: Mapping[str, float] = {HEAD: 0.0001}
"""What a function that only drives a worker group asks for: a place on the head node, which a spot
loss spares, and no CPU, so that drivers never hold what workers wait for."""
NODE_WAIT_SECONDS = 3600
"""How long a worker group waits for its nodes before it asks anew: machines take minutes."""
BATCH = 256
"""Trials that go through one run of Tune, which keeps all of them in memory to its end."""
OBJECT_STORE_BYTES = 200_000_000
"""Trials pass nothing through Ray's object store, so a local one stays small."""


TUNE_IMPORTS = ("ray.tune", "ray.air.integrations.mlflow")
"""What takes the driver of a sweep a second to import; Tune imports the second when it starts, to
count who uses it."""


@contextlib.contextmanager
def cluster(address: str | None, dashboard: bool, tune: bool = False) -> Iterator[Capacity]:
    """Connect to the Ray cluster at `address`, or start one on this machine; yields what it has.

    A local cluster ends with the block. With `tune`, the imports of `run_jobs` are made meanwhile.
    """
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # Ctrl-C ends the driver, which ends its cluster; Tune would go on to its own end first.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    # The ledger is what a sweep goes on from.
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "86400")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray would start processes at once and wait for them. Tune's actors could not use them, as
    # their environment is another.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    import ray

    with _importing(TUNE_IMPORTS if tune else ()):
        _connect(address, dashboard)
    try:
        present = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        yield Capacity(tuple(Nodes(resources, 1) for resources in present))
    finally:
        ray.shutdown()


def _connect(address: str | None, dashboard: bool) -> None:
    import ray

    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        # Without an address Ray would join whatever cluster RAY_ADDRESS or `ray start` left.
        ray.init(
            address="local",
            num_cpus=usable(),
            include_dashboard=dashboard,
            object_store_memory=OBJECT_STORE_BYTES,
            **common,
        )
    else:
        wait = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(NODE_WAIT_SECONDS)}
        shipped = {"py_modules": _own_packages(), "env_vars": wait}
        ray.init(address=address, runtime_env=shipped, **common)


@contextlib.contextmanager
def _importing(modules: Sequence[str]) -> Iterator[None]:
    """Import the modules while the block runs, which waits for other processes most of the time."""

    def load() -> None:
        with uncollected():
            for module in modules:
                importlib.import_module(module)

    thread = threading.Thread(target=load, name="imports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def run_jobs(
    jobs: Sequence[Job],
    resources: Resources,
    concurrent: int,
    watcher: Watcher,
    leases: Leases,
    further: Further | None = None,
) -> list[Record]:
    """Run the jobs, at most `concurrent` at once; returns the records of those run here.

    Jobs that another driver is at are waited for, and run here when that driver dies. Those of
    `further` come as their time comes. Raises StoreUnreachable when the run folder is lost.
    """
    if not jobs and not (further and further.to_come):
        return []
    ledger = Ledger(leases.store)
    place = f"{TEMPORARY}/{host()}.{os.getpid()}.sweep"
    ledger.store.write(f"{place}/{MARK}", b"")
    supply = Supply(jobs, ledger, leases, watcher.ended, further)
    records: list[Record] = []
    try:
        while not supply.empty:
            watch = _callback(ledger, watcher, supply)
            _fit(supply, resources, concurrent, watch, place)
            records += watch.records
    finally:
        # What stays is removed by the next driver, when this one is known to be dead.
        with contextlib.suppress(StoreUnreachable):
            ledger.store.delete(place)
    return records


def _fit(supply: Supply, resources: Resources, concurrent: int, watch: Any, place: str) -> None:
    """Run up to `BATCH` jobs of the supply through Tune."""
    from ray import tune

    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(concurrent)
    trial = tune.with_parameters(_tune_trial, resources=asdict(resources), mark=f"{place}/{MARK}")
    tuner = tune.Tuner(
        tune.with_resources(trial, _request(resources)),
        tune_config=tune.TuneConfig(
            search_alg=_searcher(supply),
            num_samples=-1,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=watch.ledger.store.uri_of(place),
            verbose=0,
            callbacks=[watch],
            log_to_file=False,
            failure_config=tune.FailureConfig(max_failures=-1),
        ),
    )
    try:
        with quiet():
            tuner.fit()
        if watch.failure is not None:
            raise watch.failure
    except Exception as error:
        if watch.blind:
            raise ClusterCannot(watch.blind) from None
        failure = watch.ledger.store.failure(error)
        if failure is not None:
            raise failure from None
        raise


def _searcher(supply: Supply) -> Any:
    """The supply as what Tune asks for trials. It ends after `BATCH`: Tune keeps every trial."""
    from ray.tune.search import Searcher

    class Next(Searcher):  # type: ignore[misc]
        """Tune takes only subclasses of its own."""

        handed_out = 0

        def suggest(self, trial_id: str) -> Any:
            if supply.all_out or self.handed_out >= BATCH:
                return Searcher.FINISHED
            job = supply.next()
            if job is None:
                return Searcher.FINISHED if supply.all_out else None
            self.handed_out += 1
            return {"job": _Opaque(job)}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            """The callback has seen it."""

        def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
            """The ledger is what a sweep goes on from."""

        def __reduce__(self) -> tuple[type, tuple[()]]:
            return (Searcher, ())

    return Next()


def remote(calls: Sequence[tuple[Any, ...]], need: Mapping[str, float]) -> list[Any]:
    """Results of calls (function, argument, …) as Ray tasks: heavy imports stay out of the driver.

    Each task asks for `need`. What a call raises is raised here.
    """
    import ray

    options = ray.remote(
        num_cpus=need.get("CPU", 0),
        num_gpus=need.get("GPU", 0),
        resources={key: amount for key, amount in need.items() if key not in ("CPU", "GPU")},
        max_retries=INFRASTRUCTURE_RETRIES,
    )
    tasks = [options(function).remote(*arguments) for function, *arguments in calls]
    try:
        with quiet():
            return list(ray.get(tasks))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None


@dataclass(frozen=True, repr=False)
class _Opaque:
    """Keeps a job from being read as settings of its own, each with its text in Tune's memory."""

    job: Job

    def __repr__(self) -> str:
        return self.job.trial_id


def _request(resources: Resources) -> dict[str, float]:
    return dict(DRIVER) if resources.workers > 1 else worker_need(resources)


def _tune_trial(config: Mapping[str, Any], resources: Mapping[str, Any], mark: str) -> None:
    """Run a job, unless the driver's `mark` in the run folder is not to be seen from here."""
    from ray import tune

    job: Job = config["job"].job
    if not Ledger(resources["runs"], PATIENCE_SECONDS).store.exists(mark):
        tune.report({"blind": _blind(resources["runs"])})
        return
    callbacks: tuple[Any, ...] = ()
    if resources["workers"] > 1:
        from ray.tune.integration.ray_train import TuneReportCallback

        callbacks = (TuneReportCallback(),)
    try:
        record = execute(
            job, Resources(**resources), lambda metrics: tune.report(dict(metrics)), callbacks
        )
    except TakenOver:
        tune.report({"taken_over": 1})
        return
    tune.report({"state": record.state})


def _blind(runs: str) -> str:
    return (
        f"node {socket.gethostname()} does not see the run folder {mask(runs)}; "
        "put it on storage that every node shares: --runs s3://…, gs://…, or a shared disk"
    )


def _callback(ledger: Ledger, watcher: Watcher, supply: Supply) -> Any:
    from ray import tune

    class Watch(Events, tune.Callback):  # type: ignore[misc]
        """Tune takes only subclasses of its own."""

        def __reduce__(self) -> tuple[type, tuple[()]]:
            """Tune pickles its callbacks to restore them; here the ledger is what is restored."""
            return (tune.Callback, ())

    return Watch(ledger, watcher, supply)


def _own_packages() -> list[str]:
    import ablate
    import search_spaces
    import trainables

    return [next(iter(package.__path__)) for package in (ablate, trainables, search_spaces)]
