/* From the speeds a command asks for to the effort of each motor. */
#ifndef OUTRIDER_MOTION_H
#define OUTRIDER_MOTION_H

#include <stdbool.h>

/* One axis, ramped: speed, its rate, and the rate's rate are bounded. */
struct motion_limits {
    float low;
    float high;
    float acceleration_max; /* away from zero */
    float deceleration_max; /* towards zero */
    float jerk_max;
};

struct motion_axis {
    float speed;
    float acceleration;
};

struct motion_gains {
    float feed_forward;
    float p;
    float i;
    float d;
    float effort_max;
};

struct motion_wheel {
    float integral;
    float measured_before;
    bool primed;
};

float motion_clamp(float value, float low, float high);

/* The speed `dt_s` later, on the way to `target`; stays between limits even where the target does not. */
float motion_ramp(struct motion_axis *axis, const struct motion_limits *limits, float target, float dt_s);

void motion_axis_reset(struct motion_axis *axis);

/* Effort in [-effort_max, effort_max]: PID on the wheel's speed with feed-forward; the derivative is of what was
   measured, the integral stops where the effort is at its bound (clamping anti-windup). */
float motion_wheel_effort(struct motion_wheel *wheel, const struct motion_gains *gains, float wanted, float measured,
                          float dt_s);

void motion_wheel_reset(struct motion_wheel *wheel);

#endif
