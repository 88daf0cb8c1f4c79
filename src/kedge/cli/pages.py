"""Pages of help: each command's module, line, task, examples and topic, without its import."""

from __future__ import annotations

from typing import NamedTuple

SET_UP, RUN, MODELS, ROLL_OUT, ROLL_BACK, WATCH, HELP = GROUPS = (
    "Set up",
    "Run",
    "Models and features",
    "Roll out",
    "Roll back",
    "Watch and explain",
    "Help",
)


class Listed(NamedTuple):
    """The facts about a command of `kedge` that are known before its module is imported."""

    module: str
    """The file in `cli/` that defines the command."""
    attribute: str
    """The command's name in that module."""
    line: str
    """The first line of the command's help; a test compares the two."""
    hidden: bool = False


COMMANDS: dict[str, Listed] = {
    "abort": Listed("hold", "abort", "End a rollout; the candidate stays eligible."),
    "accept": Listed("diagnose", "accept", "Make a window the reference of every later diagnosis."),
    "ack": Listed("alerts", "ack", "Acknowledge alert NUMBER: it escalates no further."),
    "alerts": Listed("alerts", "alerts", "Show open alerts, newest first, and who was notified."),
    "apply": Listed("setup", "apply", "Check kedge.toml and bring its policies into force."),
    "backup": Listed("backup", "backup", "Copy the state directory into DIR, while kedge runs."),
    "canary": Listed("rollout", "canary", "Send a percentage of traffic to VERSION."),
    "check": Listed("check", "check", "Check whether a rollback would work now."),
    "completion": Listed(
        "help", "completion", "Print what makes SHELL complete commands and endpoints."
    ),
    "config": Listed("config", "config", "Check kedge.toml, and describe it to editors."),
    "control": Listed("serve", "control", "Run only control: the patrol, and the API on loopback."),
    "demo": Listed("demo", "demo", "Show shadow, canary and rollback on real flights."),
    "diagnose": Listed(
        "diagnose", "diagnose", "Report why ENDPOINT became worse, and what would help."
    ),
    "doctor": Listed("setup", "doctor", "Check the ledger, artifacts, replicas and this machine."),
    "drill": Listed("drill", "drill", "Practise a rollback in production, then restore."),
    "evidence": Listed(
        "evidence", "evidence", "Compare candidate and production, with a verdict each."
    ),
    "features": Listed(
        "features", "features", "Version feature transformations, and roll them out."
    ),
    "freeze": Listed("hold", "freeze", "Stop automation on ENDPOINT; commands still work."),
    "gateway": Listed(
        "serve", "gateway", "Run only the gateway workers and their model processes."
    ),
    "gateway-worker": Listed(
        "serve", "gateway_worker", "Be one gateway worker, started by the supervisor.", hidden=True
    ),
    "help": Listed("help", "show_help", "Show a page of the documentation, or list the topics."),
    "grafana": Listed("metrics", "grafana", "Print a dashboard for Grafana, as JSON to import."),
    "history": Listed(
        "status", "history", "Show what changed, by whom, why, and how long it took."
    ),
    "init": Listed("setup", "init", "Write kedge.toml for ENDPOINT, or add it to the one here."),
    "list": Listed("status", "list_endpoints", "List the endpoints, one line each."),
    "log": Listed("log", "log", "Export the prediction log, or forget a caller in it."),
    "login": Listed("token", "login", "Print a link that logs a browser into the dashboard once."),
    "outcomes": Listed(
        "outcomes", "outcomes", "Read late labels, and join them to predictions by id."
    ),
    "pause": Listed("hold", "pause", "Hold the rollout where it is."),
    "plan": Listed("plan", "plan", "Estimate how soon each step would find a worse candidate."),
    "prometheus-rules": Listed(
        "metrics",
        "prometheus_rules",
        "Print alert rules for Prometheus, by the policies in force.",
    ),
    "promote": Listed("rollout", "promote", "Move a rollout to its next step, or into production."),
    "register": Listed(
        "models", "register", "Register the model in PATH as a version of ENDPOINT."
    ),
    "replay": Listed(
        "replay", "replay", "Replay logged requests to RELEASE, and judge its answers."
    ),
    "restart": Listed(
        "serve", "restart", "Load new code and settings into kedge up, without outage."
    ),
    "restore": Listed(
        "backup", "restore", "Restore the backup in DIR; nothing acts before kedge thaw."
    ),
    "resume": Listed("hold", "resume", "Continue a held rollout."),
    "rollback": Listed("rollback", "rollback", "Go back to the previous good release."),
    "runbook": Listed("alerts", "runbook", "Print what to do when ENDPOINT misbehaves."),
    "set-weight": Listed("hold", "set_weight", "Change the candidate's share to WEIGHT per cent."),
    "shadow": Listed("rollout", "shadow", "Send VERSION a silent copy of production's requests."),
    "speed": Listed(
        "drill", "speed", "Show how long past rollbacks took, from harm to old answer."
    ),
    "status": Listed(
        "status", "status", "Show what is live, what can take over, and what is wrong."
    ),
    "thaw": Listed("hold", "thaw", "Let automation act on ENDPOINT again."),
    "token": Listed("token", "token", "Create, list and revoke the tokens of control."),
    "unpin": Listed("rollback", "unpin", "End a pin on this host; it follows the ledger again."),
    "up": Listed("serve", "up", "Run everything on this machine; Ctrl-C stops it."),
    "wait": Listed("wait", "wait", "Wait for a goal of ENDPOINT's rollout, such as promoted."),
    "versions": Listed("models", "versions", "List the registered versions of ENDPOINT."),
}
"""Every command of `kedge`. A command within a group is defined in the module of its group."""


class Page(NamedTuple):
    """The parts of a command's help besides its options."""

    group: str
    """The task under which `kedge --help` lists it; a command within a group has its group's."""
    topic: str
    """The topic for `kedge help TOPIC`."""
    examples: tuple[str, ...]
    """Command lines; a test parses each. The endpoint is churn; files are in the directory."""


PAGES: dict[str, Page] = {
    "init": Page(SET_UP, "tutorial", ("kedge init churn", "kedge init churn --port 9000")),
    "apply": Page(SET_UP, "howto/config", ("kedge apply",)),
    "config": Page(SET_UP, "reference/config", ("kedge config check",)),
    "config check": Page(
        SET_UP, "reference/config", ("kedge config check", "kedge config check --json")
    ),
    "config schema": Page(SET_UP, "howto/config", ("kedge config schema",)),
    "backup": Page(SET_UP, "backup", ("kedge backup /mnt/backup/kedge",)),
    "restore": Page(SET_UP, "backup", ('kedge restore /mnt/backup/kedge --reason "disk failed"',)),
    "demo": Page(SET_UP, "container", ("kedge demo",)),
    "doctor": Page(SET_UP, "repair", ("kedge doctor", "kedge doctor --json")),
    "up": Page(RUN, "run-under-systemd", ("kedge up", "kedge up --port 9000 --workers 4")),
    "login": Page(RUN, "security", ("kedge login",)),
    "token": Page(
        RUN, "security", ("kedge token list", "kedge token create --role viewer --name ana")
    ),
    "token create": Page(
        RUN,
        "security",
        (
            "kedge token create --role operator --endpoint churn --expires 90d --name ci",
            "kedge token create --scope metrics --expires never --name prometheus",
        ),
    ),
    "token list": Page(RUN, "security", ("kedge token list", "kedge token list --all --json")),
    "token revoke": Page(
        RUN, "security", ('kedge token revoke ci --reason "the laptop was stolen"',)
    ),
    "restart": Page(RUN, "upgrade", ("kedge restart", "kedge restart --within 5m")),
    "gateway": Page(RUN, "run-under-systemd", ("kedge gateway",)),
    "control": Page(RUN, "run-under-systemd", ("kedge control",)),
    "register": Page(
        MODELS,
        "register-a-model",
        (
            "kedge register churn model.onnx",
            "kedge register churn model.skops --training train.csv",
            "kedge register churn model.skops --trust xgboost.sklearn.XGBClassifier",
        ),
    ),
    "wait": Page(ROLL_OUT, "shadow-and-canary", ("kedge wait churn --for promoted --timeout 2h",)),
    "versions": Page(MODELS, "register-a-model", ("kedge versions", "kedge versions churn")),
    "features": Page(
        MODELS, "features", ("kedge features list", "kedge features apply features.py")
    ),
    "features apply": Page(
        MODELS, "features", ("kedge features apply features.py --golden rows.json",)
    ),
    "features list": Page(
        MODELS, "features", ("kedge features list", "kedge features list risk/1")
    ),
    "features diff": Page(MODELS, "features", ("kedge features diff risk/1#1 risk/1#2",)),
    "features impact": Page(MODELS, "features", ("kedge features impact risk/1#2",)),
    "features shadow": Page(MODELS, "features", ("kedge features shadow churn 2 --sample 50",)),
    "features canary": Page(MODELS, "features", ("kedge features canary churn 2 --weight 5",)),
    "features roll": Page(MODELS, "features", ("kedge features roll churn 2",)),
    "features head": Page(MODELS, "features", ("kedge features head risk/1#2 --dry-run",)),
    "features follow": Page(MODELS, "features", ("kedge features follow churn",)),
    "features hold": Page(
        MODELS, "features", ('kedge features hold churn --reason "until Monday"',)
    ),
    "features materialise": Page(MODELS, "features", ("kedge features materialise spend",)),
    "features backfill": Page(MODELS, "features", ("kedge features backfill spend --since 90d",)),
    "features status": Page(MODELS, "features", ("kedge features status",)),
    "features training-set": Page(
        MODELS,
        "features",
        (
            (
                "kedge features training-set churn --spine spine.parquet --time asked_at --out"
                " train.parquet"
            ),
        ),
    ),
    "shadow": Page(
        ROLL_OUT,
        "shadow-and-canary",
        ("kedge shadow churn v2", "kedge shadow churn v2 --sample 10"),
    ),
    "canary": Page(
        ROLL_OUT,
        "shadow-and-canary",
        ("kedge canary churn v2 --weight 5", "kedge canary churn v2 --auto"),
    ),
    "promote": Page(
        ROLL_OUT,
        "shadow-and-canary",
        ("kedge promote churn", "kedge promote churn v2", "kedge promote churn --full"),
    ),
    "set-weight": Page(ROLL_OUT, "shadow-and-canary", ("kedge set-weight churn 25",)),
    "pause": Page(ROLL_OUT, "shadow-and-canary", ('kedge pause churn --reason "sale until noon"',)),
    "resume": Page(ROLL_OUT, "shadow-and-canary", ("kedge resume churn",)),
    "abort": Page(ROLL_OUT, "shadow-and-canary", ('kedge abort churn --reason "wrong model"',)),
    "plan": Page(
        ROLL_OUT, "evidence", ("kedge plan churn", "kedge plan churn --rate 100 --errors 0.5")
    ),
    "freeze": Page(ROLL_OUT, "shadow-and-canary", ('kedge freeze churn --reason "holiday"',)),
    "thaw": Page(ROLL_OUT, "shadow-and-canary", ("kedge thaw churn",)),
    "rollback": Page(
        ROLL_BACK,
        "roll-back",
        (
            "kedge rollback",
            'kedge rollback churn --reason "scores doubled"',
            "kedge rollback churn --to r3",
            "kedge rollback churn --local",
        ),
    ),
    "unpin": Page(ROLL_BACK, "break-glass", ("kedge unpin churn",)),
    "check": Page(ROLL_BACK, "readiness", ("kedge check", "kedge check churn --no-proof")),
    "drill": Page(ROLL_BACK, "drill", ("kedge drill churn --dry", "kedge drill churn --for 20s")),
    "runbook": Page(ROLL_BACK, "runbook", ("kedge runbook churn", "kedge runbook churn --html")),
    "speed": Page(ROLL_BACK, "drill", ("kedge speed churn",)),
    "status": Page(WATCH, "tutorial", ("kedge status", "kedge status churn --watch")),
    "list": Page(WATCH, "tutorial", ("kedge list",)),
    "history": Page(WATCH, "events", ("kedge history", "kedge history churn --limit 50 --all")),
    "evidence": Page(
        WATCH, "evidence", ("kedge evidence churn", "kedge evidence churn --since 7d")
    ),
    "outcomes": Page(WATCH, "evidence", ("kedge outcomes churn --file labels.csv",)),
    "replay": Page(WATCH, "evidence", ("kedge replay churn v2 --since 7d",)),
    "diagnose": Page(
        WATCH,
        "diagnose",
        ("kedge diagnose churn", "kedge diagnose churn --since 2h --segment country=DE"),
    ),
    "accept": Page(WATCH, "diagnose", ('kedge accept churn --reason "new prices since May"',)),
    "log": Page(WATCH, "evidence", ("kedge log export churn --to export",)),
    "log export": Page(WATCH, "evidence", ("kedge log export churn --since 7d --to export",)),
    "log forget": Page(WATCH, "security", ("kedge log forget customer-42",)),
    "alerts": Page(WATCH, "alerts", ("kedge alerts", "kedge alerts churn --all")),
    "alerts test": Page(WATCH, "alerts", ("kedge alerts test churn",)),
    "ack": Page(WATCH, "alerts", ("kedge ack 12", "kedge ack 12 --by ada")),
    "grafana": Page(WATCH, "prometheus-and-grafana", ("kedge grafana",)),
    "prometheus-rules": Page(
        WATCH,
        "prometheus-and-grafana",
        ("kedge prometheus-rules", "kedge prometheus-rules --json"),
    ),
    "help": Page(HELP, "tutorial", ("kedge help", "kedge help roll-back", "kedge help not_ready")),
    "completion": Page(HELP, "completion", ("kedge completion bash",)),
}
