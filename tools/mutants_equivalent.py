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
_SLOTS = "only update_switch writes the record, with slots 0 and 1, and a checksum guards it"
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
    Equivalent("dispatch.c", "take_command", "core->deadline_us = now_us + (left_us <",
               ("core->deadline_us = now_us + (left_us <= ",), _CLAMP),
    Equivalent("dispatch.c", "fresh", "const bool future = transit > UINT32_MAX / 2u;",
               ("const bool future = transit >= ", "const bool future = transit > UINT32_MAX / 3u;"),
               "half an hour from now it is refused either way: as too far ahead, or as too old"),
    Equivalent("motion.c", "motion_wheel_reset", "wheel->measured_before = 0.0f;", ("wheel->measured_before = 1", ";"),
               "with `primed` false nobody reads it before it is written"),
    Equivalent("motion.c", "motion_wheel_effort", "if (fabsf(effort) <= gains->effort_max ||",
               ("if (fabsf(effort) <= gains->effort_max || fabsf(integral) <= ",), "an integral put in its own place"),
    Equivalent("store.c", "store_save", "const size_t words = (covered + CRC_BYTES + HAL_WORD_BYTES - 1u)",
               ("const size_t words = (covered + CRC_BYTES + HAL_WORD_BYTES + 1u)",
                "const size_t words = (covered + CRC_BYTES + HAL_WORD_BYTES - 2u)"),
               "records are multiples of four bytes; one word more would be 0xFF, as erased flash is already"),
    Equivalent("store.c", "store_save", "put32(record + 4u, counter + 1u);", ("put32(record + 4u, counter + 2u);",),
               "of two counters only the order counts"),
    Equivalent("update.c", "update_boot", "if (record.slot <= 1u", ("if (record.slot <= 2u",), _SLOTS),
    Equivalent("update.c", "update_boot", "} else if (record.slot_before <= 1u",
               ("} else if (record.slot_before <= 2u",), _SLOTS),
    Equivalent("update.c", "update_signed", 'memcpy(message, "OFW1", 4u);', ('memcpy(message, "OFW1", 5u);',),
               "the literal's own zero, over which the version is written next"),
    Equivalent("update.c", "write_block", "memset(words, 0xFF, sizeof words);", (";",),
               "what fills the last word behind the image is never read"),
    Equivalent("core.c", "drive", "stand_still(core);", (";",),
               "core_begin_stop, the only way from ARMED, has done the same; without both a test fails"),
)  # fmt: skip
