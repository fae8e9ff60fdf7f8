#include "core.h"

#include <math.h>
#include <string.h>

#define STEP_MIN_US 100u
#define STEP_MAX_US 10000u
#define STANDING_RADPS 0.05f
#define STANDING_US 50000u
#define STOPPING_MAX_US 3000000u
#define BROWNOUT_US 20000u
#define OVERCURRENT_US 50000u
#define LEFT 0
#define RIGHT 1

/* After these the bridges are off: braking with power is not to be trusted. */
#define FAULTS_POWERLESS                                                                                    \
    (OUTRIDER_FAULT_EMERGENCY_STOP | OUTRIDER_FAULT_BROWNOUT | OUTRIDER_FAULT_OVERCURRENT | OUTRIDER_FAULT_SENSOR)

void core_init(struct core *core)
{
    const uint64_t now_us = hal_time_us();

    memset(core, 0, sizeof *core);
    core->state = OUTRIDER_STATE_DISARMED;
    core->boots = hal_boot_count();
    core->stepped_us = now_us;
    core->voltage_good_us = now_us;
    core->current_good_us = now_us;
    if (!parameters_load(&core->parameters)) {
        core->faults = OUTRIDER_FAULT_STORAGE;
        core->state = OUTRIDER_STATE_FAULTED;
        core->stopping_since_us = now_us - STOPPING_MAX_US; /* was never armed: stays without power */
    }
    update_boot(&core->update);
    hal_motors(false, 0.0f, 0.0f);
    hal_wheels_wanted(0.0f, 0.0f);
}

void core_receive(struct core *core, const uint8_t *data, size_t size, uint64_t now_us)
{
    struct outrider_frame frame;
    enum outrider_verdict verdict;

    for (size_t i = 0u; i < size; i++) {
        if (!framing_read(&core->reader, data[i], &frame, &verdict)) {
            continue;
        }
        if (verdict != OUTRIDER_VERDICT_GOOD) {
            core->counts.frames_bad++;
        } else {
            core->counts.frames_good++;
            core_handle(core, &frame, now_us);
        }
    }
}

static void stand_still(struct core *core)
{
    core->target_mps = 0.0f;
    core->target_radps = 0.0f;
    motion_axis_reset(&core->linear);
    motion_axis_reset(&core->angular);
    core->wanted_radps[LEFT] = 0.0f;
    core->wanted_radps[RIGHT] = 0.0f;
}

void core_begin_stop(struct core *core, enum outrider_stop_reason reason, uint64_t now_us)
{
    if (core->state != OUTRIDER_STATE_ARMED) {
        return;
    }
    core->state = OUTRIDER_STATE_STOPPING;
    core->stop_reason = reason;
    core->stopping_since_us = now_us;
    core->moving_us = now_us;
    core->announce = true;
    /* A stop is not ramped: zero is asked for at once, and the drivers' current limit bounds the deceleration. */
    stand_still(core);
    motion_wheel_reset(&core->wheels[LEFT]);
    motion_wheel_reset(&core->wheels[RIGHT]);
}

static bool sensors_good(const struct hal_sensors *s)
{
    float sum = s->battery_v + s->battery_a + s->charge; /* NaN and infinity stay so, whatever is added */

    for (size_t i = 0u; i < 2u; i++) {
        sum += s->speed_radps[i] + s->current_a[i];
    }
    for (size_t i = 0u; i < 3u; i++) {
        sum += s->acceleration_mps2[i] + s->turn_rate_radps[i];
    }
    return s->answering && isfinite(sum);
}

uint32_t core_causes(const struct core *core)
{
    const struct hal_sensors *s = &core->sensors;
    uint32_t causes = 0u;

    causes |= s->emergency_stop ? OUTRIDER_FAULT_EMERGENCY_STOP : 0u;
    causes |= s->bumpers != 0u ? OUTRIDER_FAULT_BUMPER : 0u;
    causes |= sensors_good(s) ? 0u : OUTRIDER_FAULT_SENSOR;
    causes |= core->stepped_us - core->voltage_good_us > BROWNOUT_US ? OUTRIDER_FAULT_BROWNOUT : 0u;
    causes |= core->stepped_us - core->current_good_us > OVERCURRENT_US ? OUTRIDER_FAULT_OVERCURRENT : 0u;
    return causes;
}

static void watch_inputs(struct core *core, uint64_t now_us)
{
    const struct hal_sensors *s = &core->sensors;
    const float current_max = parameters_float(&core->parameters, OUTRIDER_PARAMETER_CURRENT_MAX_A);

    hal_sensors_read(&core->sensors);
    if (s->battery_v >= parameters_float(&core->parameters, OUTRIDER_PARAMETER_BATTERY_MIN_V)) {
        core->voltage_good_us = now_us;
    }
    if (fabsf(s->current_a[LEFT]) <= current_max && fabsf(s->current_a[RIGHT]) <= current_max) {
        core->current_good_us = now_us;
    }
    if (!(fabsf(s->speed_radps[LEFT]) < STANDING_RADPS && fabsf(s->speed_radps[RIGHT]) < STANDING_RADPS)) {
        core->moving_us = now_us;
    }
    const uint32_t causes = core_causes(core);
    if ((causes & ~core->faults) != 0u) {
        core_begin_stop(core, OUTRIDER_STOP_REASON_FAULT, now_us);
        core->faults |= causes;
        core->announce = true;
    }
    if (core->faults != 0u && core->state != OUTRIDER_STATE_FAULTED) {
        if (core->state == OUTRIDER_STATE_DISARMED) {
            core->stopping_since_us = now_us - STOPPING_MAX_US; /* stands already */
        }
        core->state = OUTRIDER_STATE_FAULTED;
    }
}

static void watch_time(struct core *core, uint64_t now_us)
{
    if (core->session != 0u && now_us - core->heard_us > OUTRIDER_SESSION_TIMEOUT_US) {
        core->session = 0u;
        core_begin_stop(core, OUTRIDER_STOP_REASON_WATCHDOG, now_us);
    }
    if (core->state == OUTRIDER_STATE_ARMED && now_us >= core->deadline_us) {
        core_begin_stop(core, OUTRIDER_STOP_REASON_WATCHDOG, now_us);
        core_log(core, OUTRIDER_LEVEL_WARNING, "watchdog: no fresh command in time; arm to go on", now_us);
    }
    if (core->state == OUTRIDER_STATE_STOPPING
        && (now_us - core->moving_us > STANDING_US || now_us - core->stopping_since_us > STOPPING_MAX_US)) {
        core->state = OUTRIDER_STATE_DISARMED;
        core->announce = true;
    }
}

static void want_wheels(struct core *core, float dt_s)
{
    const float speed_max = parameters_float(&core->parameters, OUTRIDER_PARAMETER_SPEED_MAX_MPS);
    const float turn_max = parameters_float(&core->parameters, OUTRIDER_PARAMETER_TURN_RATE_MAX_RADPS);
    const float turn_acceleration = parameters_float(&core->parameters, OUTRIDER_PARAMETER_TURN_ACCELERATION_MAX_RADPS2);
    const struct motion_limits linear = {
        -parameters_float(&core->parameters, OUTRIDER_PARAMETER_REVERSE_MAX_MPS),
        speed_max,
        parameters_float(&core->parameters, OUTRIDER_PARAMETER_ACCELERATION_MAX_MPS2),
        parameters_float(&core->parameters, OUTRIDER_PARAMETER_DECELERATION_MAX_MPS2),
        parameters_float(&core->parameters, OUTRIDER_PARAMETER_JERK_MAX_MPS3),
    };
    const struct motion_limits angular = {
        -turn_max,
        turn_max,
        turn_acceleration,
        turn_acceleration,
        parameters_float(&core->parameters, OUTRIDER_PARAMETER_TURN_JERK_MAX_RADPS3),
    };
    const float radius = parameters_float(&core->parameters, OUTRIDER_PARAMETER_WHEEL_RADIUS_M);
    const float half_track = 0.5f * parameters_float(&core->parameters, OUTRIDER_PARAMETER_WHEEL_TRACK_M);
    const float speed = motion_ramp(&core->linear, &linear, core->target_mps, dt_s);
    const float turn = motion_ramp(&core->angular, &angular, core->target_radps, dt_s);

    core->wanted_radps[LEFT] = (speed - turn * half_track) / radius;
    core->wanted_radps[RIGHT] = (speed + turn * half_track) / radius;
}

static bool bridges_on(const struct core *core, uint64_t now_us)
{
    if (core->state == OUTRIDER_STATE_FAULTED) {
        return (core->faults & FAULTS_POWERLESS) == 0u && now_us - core->stopping_since_us < STOPPING_MAX_US
            && now_us - core->moving_us <= STANDING_US;
    }
    return core->state == OUTRIDER_STATE_ARMED || core->state == OUTRIDER_STATE_STOPPING;
}

static void drive(struct core *core, float dt_s, uint64_t now_us)
{
    const struct motion_gains gains = {
        parameters_float(&core->parameters, OUTRIDER_PARAMETER_WHEEL_FEED_FORWARD),
        parameters_float(&core->parameters, OUTRIDER_PARAMETER_WHEEL_P),
        /* What a braking wheel gathered in its integral would drive it backwards once it stands. */
        core->state == OUTRIDER_STATE_ARMED ? parameters_float(&core->parameters, OUTRIDER_PARAMETER_WHEEL_I) : 0.0f,
        parameters_float(&core->parameters, OUTRIDER_PARAMETER_WHEEL_D),
        parameters_float(&core->parameters, OUTRIDER_PARAMETER_EFFORT_MAX),
    };
    float effort[2];

    if (core->state == OUTRIDER_STATE_ARMED) {
        want_wheels(core, dt_s);
    } else {
        stand_still(core);
    }
    hal_wheels_wanted(core->wanted_radps[LEFT], core->wanted_radps[RIGHT]);
    if (!bridges_on(core, now_us)) {
        motion_wheel_reset(&core->wheels[LEFT]);
        motion_wheel_reset(&core->wheels[RIGHT]);
        hal_motors(false, 0.0f, 0.0f);
        return;
    }
    for (size_t i = 0u; i < 2u; i++) {
        effort[i] = motion_wheel_effort(&core->wheels[i], &gains, core->wanted_radps[i],
                                        core->sensors.speed_radps[i], dt_s);
    }
    hal_motors(true, effort[LEFT], effort[RIGHT]);
}

void core_step(struct core *core, uint64_t now_us)
{
    enum outrider_result verified;
    const uint64_t passed_us = now_us - core->stepped_us;
    const uint64_t dt_us = passed_us < STEP_MIN_US ? STEP_MIN_US : passed_us > STEP_MAX_US ? STEP_MAX_US : passed_us;

    if (core->restarting) {
        hal_motors(false, 0.0f, 0.0f);
        hal_restart();
        return;
    }
    core->stepped_us = now_us;
    watch_inputs(core, now_us);
    watch_time(core, now_us);
    drive(core, 1e-6f * (float)dt_us, now_us);
    if (update_step(&core->update, &verified)) {
        core_acknowledge(core, core->verify_sequence, OUTRIDER_CODE_UPDATE_VERIFY, verified, core->update.offset);
    }
    core_feedback(core, now_us);
}
