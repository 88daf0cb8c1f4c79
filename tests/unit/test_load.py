"""kedge.toml: everything that is wrong is said at once, each with its place and a remedy."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.config.document import TEMPLATE, owner_from_git, quoted
from kedge.config.load import load, parse
from kedge.config.model import ServerSettings, Settings
from kedge.core.codec import decode, encode
from kedge.core.errors import BadConfig
from kedge.core.features.generations import LookupRules
from kedge.core.values import Field, Guardrail, Policy

ENDPOINT = "[endpoints.flights]\n"


def read(text: str) -> Settings:
    return parse(tomllib.loads(text))


def policy(text: str) -> Policy:
    return read(ENDPOINT + text).endpoints["flights"]


def faults(text: str) -> list[str]:
    with pytest.raises(BadConfig) as caught:
        read(text)
    return [fault.removeprefix("kedge.toml: ") for fault in caught.value.faults]


def fault(text: str) -> str:
    """The only fault of an endpoint's table."""
    (found,) = faults(ENDPOINT + text)
    return found.removeprefix("endpoints.flights.")


MANY = """
colour = "red"

[server]
prot = 8080
port = 99999
workers = "two"

[endpoints.flights]
audience = "costumer"
entity = "tail"
segments = ["origin", "airline"]
output = {kind = "binary"}
memory_mb = 1
back_window = "a while"

[endpoints.flights.owner]
name = "Ada"

[endpoints.flights.fields]
origin = {dtype = "strnig"}
delay = {dtype = "float32", nullabel = true}
carrier = "string"

[endpoints.flights.canary]
steps = [5, 1]

[endpoints.flights.shadow]
sample = 0
window = "7 days"

[endpoints.flights.limits]
rows = 0

[endpoints.flights.guardrails.errors]
worse_by = "half"

[endpoints."2late"]
log = {sample = 101}
"""

PLACES = [
    "colour",
    "server.prot",
    "server.port",
    "server.workers",
    "endpoints.flights.audience",
    "endpoints.flights.entity",
    "endpoints.flights.segments",
    "endpoints.flights.output.score",
    "endpoints.flights.memory_mb",
    "endpoints.flights.back_window",
    "endpoints.flights.owner.contact",
    "endpoints.flights.fields.origin.dtype",
    "endpoints.flights.fields.delay.nullabel",
    "endpoints.flights.fields.carrier",
    "endpoints.flights.canary.steps",
    "endpoints.flights.shadow.sample",
    "endpoints.flights.shadow.window",
    "endpoints.flights.limits.rows",
    "endpoints.flights.guardrails.errors.worse_by",
    "endpoints.2late",
    "endpoints.2late.log.sample",
]


def test_a_file_with_twenty_one_mistakes_reports_every_one_with_its_place_and_once() -> None:
    """No fault hides another, none is told twice."""
    assert sorted(fault.split(": ")[0] for fault in faults(MANY)) == sorted(PLACES)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ("server.prot", "did you mean port?"),
        ("endpoints.flights.audience", "is none of customer, internal; did you mean customer?"),
        ("endpoints.flights.fields.origin.dtype", "did you mean string?"),
        ("endpoints.flights.fields.delay.nullabel", "did you mean nullable?"),
        ("endpoints.flights.segments", "airline is not a declared field"),
        ("endpoints.flights.output.score", 'kind "binary" needs the name of an output'),
        ("endpoints.flights.back_window", "write 500ms, 90s, 10m, 1h or 7d"),
        ("endpoints.flights.canary.steps", "must grow"),
        ("server.workers", "expected `int`, got `str`"),
    ],
)
def test_a_fault_says_what_would_be_right(wrong: str, said: str) -> None:
    """Each of the twenty-one has a remedy in its sentence."""
    (found,) = (fault for fault in faults(MANY) if fault.startswith(f"{wrong}: "))
    assert said in found


def test_a_fault_names_the_file(tmp_path: Path) -> None:
    """A user with two of them must know which."""
    path = tmp_path / "kedge.toml"
    path.write_text("colour = 1")
    with pytest.raises(BadConfig, match=r"kedge\.toml:1: colour: unknown setting") as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_missing_broken_or_no_file_is_a_fault_with_a_hint(tmp_path: Path) -> None:
    """Nothing else than BadConfig comes out of `load`."""
    broken = tmp_path / "broken.toml"
    broken.write_bytes(b"[server\n")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    for path in (tmp_path / "none.toml", broken, binary, tmp_path):
        with pytest.raises(BadConfig) as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert caught.value.hint


@pytest.mark.parametrize(
    "text, place",
    [
        ("server = 3", "server"),
        ("endpoints = 3", "endpoints"),
        ("[endpoints]\nflights = 3", "endpoints.flights"),
        (ENDPOINT + "fields = 3", "endpoints.flights.fields"),
        (ENDPOINT + "canary = 3", "endpoints.flights.canary"),
        (ENDPOINT + "owner = 3", "endpoints.flights.owner"),
        (ENDPOINT + "guardrails = 3", "endpoints.flights.guardrails"),
        (ENDPOINT + "guardrails = {errors = 3}", "endpoints.flights.guardrails.errors"),
        (ENDPOINT + "escalation = 3", "endpoints.flights.escalation"),
        (ENDPOINT + "escalation = [3]", "endpoints.flights.escalation[0]"),
        (ENDPOINT + "segments = 'origin'", "endpoints.flights.segments"),
    ],
)
def test_a_value_that_should_be_a_table_is_one_fault(text: str, place: str) -> None:
    """And not a crash, and not a fault for each key it lacks."""
    (found,) = faults(text)
    assert found.startswith(f"{place}: expected")


@pytest.mark.parametrize(
    "text",
    [
        'server = {port = "8080"}',
        "server = {workers = true}",
        "server = {drain_s = '1'}",
        ENDPOINT + "memory_mb = 1.5",
        ENDPOINT + "shadow = {sample = '50'}",
        ENDPOINT + "canary = {steps = ['a', 2]}",
        ENDPOINT + "back_window = 14",
        ENDPOINT + "features = {follow = 1}",
        ENDPOINT + "audience = 2026-01-05",
        ENDPOINT + "fields = {x = {dtype = 'float32', nullable = 'yes'}}",
    ],
)
def test_a_wrong_type_is_never_converted(text: str) -> None:
    """kedge does not guess what a string was meant to be."""
    (found,) = faults(text)
    assert "expected" in found or "is none of" in found


@pytest.mark.parametrize("steps", ["[]", "[0, 5]", "[1, 1]", "[50, 101]", "[-1, 5]", "[nan]"])
def test_canary_steps_grow_within_a_hundred_per_cent(steps: str) -> None:
    """No step, a step twice, nothing, more than all: none of them is a walk."""
    assert fault(f"canary = {{steps = {steps}}}").startswith("canary.steps: must")


@pytest.mark.parametrize("sample", ["0", "-1", "100.5", "nan", "inf"])
def test_a_shadow_that_gets_nothing_or_more_than_all_is_a_fault(sample: str) -> None:
    """A silent shadow proves nothing."""
    assert fault(f"shadow = {{sample = {sample}}}").startswith("shadow.sample: ")


def test_a_log_that_keeps_nothing_is_allowed() -> None:
    """Zero per cent is how one turns it off."""
    assert policy("log = {sample = 0}").log.sample == 0


@pytest.mark.parametrize(
    "name", ["rows", "timeout_ms", "shadow_in_flight", "candidate_deadline_ms"]
)
@pytest.mark.parametrize("value", ["0", "-5", "100000000000000000000"])
def test_a_limit_is_at_least_one_and_a_number_that_can_be_kept(name: str, value: str) -> None:
    """A deadline of zero would fail every answer of a candidate."""
    assert fault(f"limits = {{{name} = {value}}}").startswith(f"limits.{name}: must be")


@pytest.mark.parametrize("number", ["0", "-1", "1000"])
def test_a_guardrails_share_is_refused_with_both_of_its_limits(number: str) -> None:
    told = fault(f"guardrails = {{errors = {{worse_by = {number}}}}}")
    assert "worse_by: must be above 0 and at most 100" in told


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e300"])
def test_a_number_that_json_cannot_hold_is_a_fault(number: str) -> None:
    """The ledger keeps a policy as JSON, which turns NaN into null: no row could be read again."""
    for text in (f"output = {{tolerance = {number}}}", f"output = {{threshold = {number}}}"):
        assert "must be a number below 2**53" in fault(text)
    assert "worse_by" in fault(f"guardrails = {{errors = {{worse_by = {number}}}}}")


def test_a_tolerance_is_not_negative() -> None:
    """No two answers would ever agree."""
    assert fault("output = {tolerance = -1.0}").startswith("output.tolerance: ")


@pytest.mark.parametrize("kind", ["binary", "score"])
def test_an_output_that_is_compared_by_score_names_it(kind: str) -> None:
    """Only `exact` compares everything."""
    assert fault(f'output = {{kind = "{kind}"}}').startswith("output.score: ")
    assert policy(f'output = {{kind = "{kind}", score = "p"}}').output.score == "p"


def test_a_score_of_another_type_is_one_fault_and_not_a_missing_one() -> None:
    """What is missing is read from the file, not from the faults that were written before."""
    assert fault('output = {kind = "binary", score = 5}').startswith(
        "output.score: expected `str | null`"
    )


def test_an_entity_is_a_declared_field_of_one_value() -> None:
    """What routes a request must be in it; without declared fields nothing can be said."""
    fields = 'fields = {x = {dtype = "float32", shape = [4]}, y = {dtype = "string"}}\n'
    assert fault(fields + 'entity = "z"') == "entity: z is not a declared field"
    assert "and not one" in fault(fields + 'entity = "x"')
    assert policy(fields + 'entity = "y"').entity == "y"
    assert policy('entity = "z"').entity == "z"


def test_a_field_with_another_fault_still_counts_as_declared() -> None:
    """One mistake is one line."""
    assert fault('entity = "x"\nfields = {x = {dtype = "floot32"}}').startswith("fields.x.dtype: ")


def test_fields_keep_the_order_in_which_they_are_written() -> None:
    """It is the order in which callers and people see them."""
    names = ["zulu", "alpha", "mike", "bravo"]
    lines = "".join(f'{name} = {{dtype = "float32"}}\n' for name in names)
    assert [f.name for f in policy(f"[endpoints.flights.fields]\n{lines}").fields] == names


def test_a_field_has_dtype_shape_and_null_rule_and_only_those() -> None:
    """Its name is its key: a second one would be another field."""
    found = policy('fields = {x = {dtype = "int8", shape = [2, -1], nullable = true}}').fields
    assert found == (Field("x", "int8", (2, -1), nullable=True),)
    assert fault('fields = {x = {dtype = "int8", name = "y"}}').startswith("fields.x.name: unknown")
    assert fault("fields = {x = {nullable = true}}") == "fields.x.dtype: is missing"


@pytest.mark.parametrize("shape", ["[0]", "[-2]", "[3, 0]"])
def test_a_length_that_no_row_can_have_is_a_fault(shape: str) -> None:
    """-1 is any length; nothing else below one means something."""
    assert fault(f'fields = {{x = {{dtype = "int8", shape = {shape}}}}}').startswith(
        "fields.x.shape: "
    )


def test_guardrails_are_a_table_of_thresholds() -> None:
    """By the names that people give them."""
    text = '[endpoints.flights.guardrails]\nerrors = {worse_by = 0.5}\nquality = {metric = "absolute_error", worse_by = 1}'
    assert policy(text).guardrails == {
        "errors": Guardrail(worse_by=0.5),
        "quality": Guardrail(worse_by=1.0, metric="absolute_error"),
    }


def test_an_escalation_step_reports_its_own_place() -> None:
    """The second of two is told apart from the first."""
    text = 'escalation = [{after = "0m", to = ["a@b"]}, {after = "soon", to = ["c@d"]}]'
    assert fault(text).startswith("escalation[1].after: 'soon' is not a duration")
    assert fault('escalation = [{after = "0m"}]') == "escalation[0].to: is missing"


@pytest.mark.parametrize("name", ["-x", "_x", "2late", "a b", "a.b", "a/b", "flüge", "x" * 41, ""])
def test_an_endpoint_name_fits_a_path_a_url_and_a_command_line(name: str) -> None:
    """It becomes part of all three, and of a socket's name, which is short."""
    (found,) = faults(f'[endpoints."{name}"]')
    assert "a name starts with a letter" in found


@pytest.mark.parametrize("name", ["x", "flights", "late-flights_2", "X" * 40])
def test_a_plain_name_is_a_name(name: str) -> None:
    """Letters, digits, dash and underscore."""
    assert name in read(f"[endpoints.{name}]").endpoints


@pytest.mark.parametrize(
    "text",
    [
        "port = -1",
        "port = 65536",
        "control_port = 70000",
        "workers = 0",
        "max_body_mb = 0.0",
        "max_in_flight = 0",
        "lease_s = 0",
        "drain_s = -0.1",
    ],
)
def test_a_server_that_could_not_serve_is_refused_before_it_is_started(text: str) -> None:
    """Each is told by its name."""
    (found,) = faults(f"[server]\n{text}")
    assert found.startswith(f"server.{text.partition(' ')[0]}: ")


@pytest.mark.parametrize("text", ["port = 0", "drain_s = 0", "lease_s = 2", "max_body_mb = 1"])
def test_the_edges_of_what_a_server_may_be_are_inside(text: str) -> None:
    """Port 0 is "any free one"; a whole number is a number."""
    assert isinstance(read(f"[server]\n{text}").server, ServerSettings)


def test_where_values_are_looked_up_lies_within_the_state_directory_unless_said_otherwise() -> None:
    def where(text: str, **environ: str) -> str:
        online = read(f"[online]\n{text}").online
        return online.opened(Path("/site"), Path("/site/.kedge"), environ).where

    assert where("") == "/site/.kedge/online/online.db"
    assert where('store = "lmdb"') == "/site/.kedge/online/lmdb"
    assert where('store = "lmdb"\npath = "/fast"') == "/fast"
    assert where('store = "sqlite"\npath = "values.db"') == "/site/values.db"
    with pytest.raises(BadConfig, match="redis needs one"):
        where('store = "redis"')
    url = "redis://:secret@cache:6379"
    assert where('store = "redis"', KEDGE_ONLINE_URL=url) == "", (
        "a command line tells it to everybody"
    )
    assert where('store = "redis"\nurl = "redis://cache"', KEDGE_ONLINE_URL=url) == "redis://cache"
    given = read('[online]\nmissing = "refuse"').online.opened(Path("/"), Path("/"), {})
    assert given.rules == LookupRules(missing="refuse")


def test_every_fault_of_the_online_store_is_reported_at_once() -> None:
    text = '[online]\nstore = "sqlite"\nurl = "http://x"\nmissing = "ignore"\nttl = "3d"'
    found = "\n".join(faults(text))
    for part in (
        "online.ttl: unknown setting",
        "online.missing: 'ignore' is none of",
        "online.url: is for redis",
        "online.url: begins with redis://",
    ):
        assert part in found


def test_an_empty_file_is_the_defaults() -> None:
    """Nothing must be written that is meant to be as usual."""
    assert read("") == Settings()
    assert policy("") == Policy()


@pytest.mark.parametrize("name", ["flights", "late-flights_2", "X" * 40, "true", "inf", "a-1"])
@pytest.mark.parametrize("port", [0, 1, 8080, 65535])
@pytest.mark.parametrize("owner", ["Ada", 'Ada "the first" Example', "Ådå \\ 😀", "a\x7fb\tc\nd"])
def test_the_file_of_init_can_be_read(name: str, port: int, owner: str) -> None:
    """For every name, port and owner that is allowed."""
    text = TEMPLATE.format(
        schema="s.json", name=name, port=port, owner=quoted(owner), contact=quoted("mailto:a@b")
    )
    found = read(text)
    assert (list(found.endpoints), found.server.port) == ([name], port)
    human = found.endpoints[name].owner
    assert human is not None
    assert human.name == owner


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_quoted_text_is_read_back_as_it_was(text: str) -> None:
    """Git may hold any name."""
    assert tomllib.loads(f"name = {quoted(text)}") == {"name": text}


def test_the_owner_of_an_endpoint_comes_from_git_or_is_a_placeholder() -> None:
    """Two TOML strings, whatever this machine's git knows."""
    name, contact = (tomllib.loads(f"x = {text}")["x"] for text in owner_from_git())
    assert name
    assert contact.startswith("mailto:")


_leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.dates()
)
_keys = st.one_of(
    st.text(max_size=5),
    st.sampled_from(
        [
            "server",
            "endpoints",
            "port",
            "fields",
            "x",
            "dtype",
            "shape",
            "canary",
            "steps",
            "shadow",
            "sample",
            "window",
            "output",
            "kind",
            "score",
            "limits",
            "rows",
            "escalation",
            "after",
            "to",
            "guardrails",
            "owner",
            "rota",
            "alerts",
            "people",
            "name",
            "contact",
            "entity",
            "segments",
            "log",
        ]
    ),
)
_tables = st.recursive(
    _leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_keys, inner, max_size=4)),
    max_leaves=20,
)


@given(st.dictionaries(_keys, _tables, max_size=4), st.dictionaries(_keys, _tables, max_size=6))
def test_whatever_a_file_holds_is_settings_that_can_be_stored_or_faults(
    top: dict[str, Any], table: dict[str, Any]
) -> None:
    """Nothing else is raised, and what is accepted survives the ledger."""
    for raw in (top, {"endpoints": {"flights": table}}, {"server": table}):
        try:
            found = parse(raw)
        except BadConfig as error:
            assert error.faults  # noqa: PT017
        else:
            assert decode(encode(found), Settings) == found


@pytest.mark.parametrize(
    "line, place",
    [
        ("cost = {per_call = -1}", "cost.per_call"),
        ("cost = {per_token = 0.1}", "cost.per_token"),
        ("cost = {max = 0}", "cost.max"),
        ("cost = {max = nan}", "cost.max"),
        ("cost = {versions = {3 = {per_call = 1}}}", "cost.versions.3"),
        ("cost = {versions = {v3 = {per_call = nan}}}", "cost.versions.v3.per_call"),
        ("guardrails = {cost = {worse_by = 0.1}}", "guardrails.cost"),
        ("shadow = {noise = 101}", "shadow.noise"),
        ("canary = {holdback = 51}", "canary.holdback"),
        ('output = {kind = "custom"}', "output.function"),
        ('output = {function = "a:b"}', "output.function"),
        ('output = {kind = "custom", function = "a.b"}', "output.function"),
    ],
)
def test_prices_shares_and_functions_are_checked(line: str, place: str) -> None:
    (found,) = faults(ENDPOINT + line)
    assert found.startswith(f"endpoints.flights.{place}")


@pytest.mark.parametrize(
    "line, place",
    [
        ('output = {kind = "class", score = "p"}', "output.score"),
        ('output = {kind = "binary", score = "p", label = "label"}', "output.label"),
        ('output = {kind = "class", value = "y"}', "output.value"),
        ('output = {kind = "exact", label = "label", value = "y"}', "output"),
        ('output = {kind = "binary", score = "p", classes = ["a", "b", "c"]}', "output.classes"),
        ('output = {kind = "class", classes = ["a", "a"]}', "output.classes"),
        ('output = {kind = "class", classes = ["a", 1]}', "output.classes"),
        ('output = {kind = "score", value = "y", classes = ["a", "b"]}', "output.classes"),
        (
            'output = {kind = "exact", label = "l"}\nguardrails = {quality = {worse_by = 0.1, metric = "absolute_error"}}',
            "guardrails.quality.metric",
        ),
        (
            'output = {kind = "class"}\nguardrails = {quality = {worse_by = 0.1, metric = "log_loss"}}',
            "guardrails.quality.metric",
        ),
    ],
)
def test_labels_are_compared_with_one_output_of_the_right_form(line: str, place: str) -> None:
    (found,) = faults(ENDPOINT + line)
    assert found.startswith(f"endpoints.flights.{place}")


@pytest.mark.parametrize(
    "line",
    [
        'output = {kind = "class", label = "label", classes = ["a", "b", "c"]}',
        'output = {kind = "class"}',
        'output = {kind = "binary", score = "p", classes = [1, 2]}',
        'output = {kind = "score", value = "y", tolerance = 0.5}',
        'output = {kind = "exact", value = "y"}',
    ],
)
def test_every_form_of_output_that_the_template_shows_is_accepted(line: str) -> None:
    assert policy(line).output is not None


@pytest.mark.parametrize(
    "line", ['trusted_peers = ["10.0.0.0/33"]', 'entity_from = ["nowhere"]', 'entity_from = "none"']
)
def test_peers_are_addresses(line: str) -> None:
    """A proxy that cannot be read is found before a worker starts."""
    with pytest.raises(BadConfig, match=r"server\.(trusted_peers|entity_from)"):
        read(f"[server]\n{line}\n")


def test_peers_are_read() -> None:
    """As lists of ranges."""
    server = read('[server]\ntrusted_peers = ["10.0.0.0/8"]\nentity_from = ["::1"]\n').server
    assert (server.trusted_peers, server.entity_from) == (("10.0.0.0/8",), ("::1",))


@pytest.mark.parametrize(
    "line",
    [
        "canary = {steps = [1e-9, 50]}",
        "canary = {steps = [1, 1.001]}",
        "canary = {holdback = 0.001}",
        "shadow = {sample = 1e-9}",
        "after = {sample = 0.009}",
        "log = {sample = 1e-3}",
    ],
)
def test_a_share_that_rounds_to_no_caller_is_refused(line: str) -> None:
    with pytest.raises(BadConfig) as refused:
        read(f"[endpoints.e]\n{line}\n")
    assert "0.01" in str(refused.value)


@pytest.mark.parametrize("metric", ["auc", "calibration_error"])
def test_a_figure_that_is_an_estimate_judges_nothing_and_the_refusal_names_the_table(
    metric: str,
) -> None:
    text = (
        '[endpoints.e]\noutput = {kind = "binary", score = "p"}\n'
        f'guardrails = {{quality = {{worse_by = 0.05, metric = "{metric}"}}}}\n'
    )
    with pytest.raises(BadConfig) as refused:
        read(text)
    assert "is an estimate" in str(refused.value)
    assert "log_loss, brier" in str(refused.value)
    assert "kedge help metrics" in str(refused.value)


def test_rmse_needs_a_tolerance_and_mape_none() -> None:
    head = '[endpoints.e]\noutput = {kind = "score", value = "y"}\n'
    rail = 'guardrails = {{quality = {{worse_by = 0.05, metric = "{}"}}}}\n'
    read(head + rail.format("mape"))
    with pytest.raises(BadConfig) as refused:
        read(head + rail.format("rmse"))
    assert "set a tolerance" in str(refused.value)


def test_a_function_judges_quality_of_every_kind_of_output_and_nothing_else() -> None:
    rail = 'guardrails = {{{} = {{worse_by = 0.05, metric = "{}"}}}}\n'
    for kind in ('kind = "binary", score = "p"', 'kind = "class", label = "c"', 'kind = "exact"'):
        read(f"[endpoints.e]\noutput = {{{kind}}}\n" + rail.format("quality", "pricing.mine:loss"))
    for name, metric in (("errors", "pricing:loss"), ("quality", "pricing:"), ("quality", ":loss")):
        with pytest.raises(BadConfig):
            read("[endpoints.e]\n" + rail.format(name, metric))


def test_a_ranking_names_its_vector_and_is_judged_by_ndcg() -> None:
    head = '[endpoints.e]\noutput = {kind = "ranking", label = "items"}\n'
    rail = 'guardrails = {{quality = {{worse_by = 0.05, metric = "{}"}}}}\n'
    for metric in ("ndcg@1", "ndcg@20", "error_rate"):
        read(head + rail.format(metric))
    for metric in ("ndcg@0", "ndcg@21", "rmse", "auc"):
        with pytest.raises(BadConfig) as refused:
            read(head + rail.format(metric))
        assert "kedge help metrics" in str(refused.value)
    with pytest.raises(BadConfig):
        read('[endpoints.e]\noutput = {kind = "ranking"}\n')
