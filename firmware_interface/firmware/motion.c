#include "motion.h"

#include <math.h>

float motion_clamp(float value, float low, float high)
{
    if (!(value >= low)) { /* NaN as well */
        return low;
    }
    return value > high ? high : value;
}

void motion_axis_reset(struct motion_axis *axis)
{
    axis->speed = 0.0f;
    axis->acceleration = 0.0f;
}

float motion_ramp(struct motion_axis *axis, const struct motion_limits *limits, float target, float dt_s)
{
    const float wanted = motion_clamp(target, limits->low, limits->high);
    const float step = limits->jerk_max * dt_s;
    const float error = wanted - axis->speed;
    const float away = axis->speed >= 0.0f ? 1.0f : -1.0f;
    const float bound = error * away >= 0.0f ? limits->acceleration_max : limits->deceleration_max;

    /* The rate from which jerk_max still brings it to zero just as the target is reached: v = a^2 / 2j, less the
       half step that sampling costs. */
    float rate = sqrtf(2.0f * limits->jerk_max * fabsf(error) + 0.25f * step * step) - 0.5f * step;
    rate = motion_clamp(rate, 0.0f, bound);
    rate = error < 0.0f ? -rate : rate;
    axis->acceleration += motion_clamp(rate - axis->acceleration, -step, step);
    axis->acceleration = motion_clamp(axis->acceleration, -fmaxf(limits->acceleration_max, limits->deceleration_max),
                                      fmaxf(limits->acceleration_max, limits->deceleration_max));
    const float speed = axis->speed + axis->acceleration * dt_s;
    if (fabsf(wanted - speed) <= step * dt_s && fabsf(axis->acceleration) <= 2.0f * step) {
        axis->speed = wanted;
        axis->acceleration = 0.0f;
    } else {
        axis->speed = motion_clamp(speed, limits->low, limits->high);
    }
    return axis->speed;
}

void motion_wheel_reset(struct motion_wheel *wheel)
{
    wheel->integral = 0.0f;
    wheel->measured_before = 0.0f;
    wheel->primed = false;
}

float motion_wheel_effort(struct motion_wheel *wheel, const struct motion_gains *gains, float wanted, float measured,
                          float dt_s)
{
    const float error = wanted - measured;
    const float slope = wheel->primed ? (measured - wheel->measured_before) / dt_s : 0.0f;
    const float integral = wheel->integral + gains->i * error * dt_s;
    const float base = gains->feed_forward * wanted + gains->p * error - gains->d * slope;
    const float effort = base + integral;
    const float bounded = motion_clamp(effort, -gains->effort_max, gains->effort_max);

    wheel->measured_before = measured;
    wheel->primed = true;
    if (fabsf(effort) <= gains->effort_max || fabsf(integral) < fabsf(wheel->integral)) {
        wheel->integral = motion_clamp(integral, -gains->effort_max, gains->effort_max);
    }
    return bounded;
}
