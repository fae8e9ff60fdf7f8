"""Changes of the C core that nobody can see, and why: ``tools/mutation_c.py`` leaves them out, and says so.

A line here is a claim. ``python -m tools.mutation_c --equivalent`` tries each, and fails when a test does notice one or
when the code no longer has such a line.
"""

from typing import NamedTuple


class Equivalent(NamedTuple):
    """A change, or several of one line.

    Attributes:
        file: of the core.
        function: in which; empty: in any.
        before: how the good line begins, without its indent.
        after: how the changed line may begin.
        reason: why nobody can tell.
    """

    file: str
    function: str
    before: str
    after: tuple[str, ...]
    reason: str


_SUM = "what is not finite stays so under either sign: inf - inf is NaN"
_CLAMP = "at the bound both sides give the bound"

EQUIVALENT = (
    Equivalent("core.c", "core_init", "core->state = OUTRIDER_STATE_DISARMED;", (";",),
               "it is 0, as memset has left it"),
    Equivalent("core.c", "", "hal_motors(false, 0.0f, 0.0f);",
               ("hal_motors(false, 1.0f", "hal_motors(false, 0.0f, 1.0f"),
               "hal.h: with `enabled` false the bridges are off, whatever the efforts"),
    Equivalent("core.c", "core_begin_stop", "stand_still(core);", (";",),
               "the next `drive` does the same before anything is asked of the wheels, and no arm is taken before it"),
    Equivalent("core.c", "sensors_good", "float sum = s->battery_v",
               ("float sum = s->battery_v -", "float sum = s->battery_v + s->battery_a -"), _SUM),
    Equivalent("core.c", "sensors_good", "sum += s->speed_radps[i] +",
               ("sum += s->speed_radps[i] -",), _SUM),
    Equivalent("core.c", "sensors_good", "sum += s->acceleration_mps2[i] +",
               ("sum += s->acceleration_mps2[i] -",), _SUM),
    Equivalent("core.c", "watch_time", "if (core->session != 0u && now_us",
               ("if (core->session != 1u && now_us",),
               "no session has the number 1 (their upper half counts starts), and without one there is none to end"),
    Equivalent("core.c", "core_step", "const uint64_t dt_us = passed_us < STEP_MIN_US",
               ("const uint64_t dt_us = passed_us <= STEP_MIN_US",
                "const uint64_t dt_us = passed_us < STEP_MIN_US ? STEP_MIN_US : passed_us >= "), _CLAMP),
)  # fmt: skip
