"""Why a run is not valid, in words."""

from __future__ import annotations

from workbench.reasons import MOST, indented, reasons
from workbench.record import edn

ECHO = """{:valid? false, :workload {:valid? false, :errors [
  ["Expected a message with :echo" "Please echo 1" "But received" "no"]
  ["Expected a message with :echo" "Please echo 2" "But received" :net-timeout]
  ["Expected a message with :echo" "Please echo 3" "But received" [:crash "ValueError: 7"]]]}}"""


def test_an_invalid_echo_is_told_in_words() -> None:
    assert reasons(edn.loads(ECHO)) == [
        'An echo of "Please echo 1" was expected, but "no" was received',
        'The request to echo "Please echo 2" got no matching reply in time',
        'The request to echo "Please echo 3" got the error crash: ValueError: 7',
    ]


def test_a_malformed_echo_is_told_once_if_a_broken_rule_explains_it() -> None:
    workload = """:workload {:valid? false, :errors [
      ["Expected a message with :echo" "a" "But received" :malformed-rpc-response]]}"""
    alone = reasons(edn.loads(f"{{{workload}}}"))
    assert alone == ['The request to echo "a" got a malformed reply']
    broken = ':exceptions {:valid? false, :exceptions ["n0 lied"]}'
    assert reasons(edn.loads(f"{{{workload}, {broken}}}")) == ["Broken rule: n0 lied"]


def test_each_part_has_its_words_and_linearizability_comes_first() -> None:
    results = """{:timeline {:valid? true},
        :cut-short {:valid? :unknown, :why "cut short by SIGINT"},
        :stats {:valid? false, :by-f {:cas {:valid? false}, :read {:valid? true}}},
        :availability {:valid? false, :ok-fraction 0.25},
        :exceptions {:valid? false, :exceptions ["n0 lied" "The test was aborted: n0 ended"]},
        :net {:valid? false, :lost 1},
        :workload {:valid? false, :results {0 {:valid? true}, 1 {:valid? false, :linearizable
          {:valid? false, :why "key 1 is stale"}}}}, :valid? false}"""
    assert reasons(edn.loads(results)) == [
        "key 1 is stale",
        "Broken rule: n0 lied",
        "The test was aborted: n0 ended",
        "No cas operation was ok, so the test cannot be valid.",
        "Only 25.0% of the operations were ok, too few for --availability.",
        "net: {:valid? false, :lost 1}",
        "The run was cut short by SIGINT.",
    ]


def test_foreign_results_and_floods_stay_readable() -> None:
    many = " ".join(f'"n{number}"' for number in range(MOST + 5))
    found = reasons(edn.loads(f"{{:exceptions {{:valid? false, :exceptions [{many}]}}}}"))
    assert len(found) == MOST + 1 and found[-1] == "And 5 more of this kind."
    odd = "{:exceptions {:valid? false, :exceptions {}}, :workload {:valid? false, :errors [1]}}"
    assert [why.split(":")[0] for why in reasons(edn.loads(odd))] == ["workload", "exceptions"]
    assert indented("first\n    second\nthird") == "first\n    second\n    third"
