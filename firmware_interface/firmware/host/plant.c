/* Two DC gear motors that share a 30 kg robot. An outside plant behind a socket may be the body that they move: it makes
   its wheels turn as these shafts do, and what holds its wheels back, or pushes them, comes back to the shafts. */
#define _POSIX_C_SOURCE 200809L
#include "host.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SUPPLY_V 24.0
#define BACK_EMF 0.8      /* V/(rad/s): 30 rad/s without load */
#define RESISTANCE 1.0    /* ohm */
#define TORQUE_PER_A 0.8  /* N m/A, as the back EMF */
#define CHOPPED_A 10.0    /* the driver stage's own limit */
#define INERTIA 0.096     /* kg m^2: half of 30 kg at a radius of 0.08 m */
#define FRICTION 0.3      /* N m */
#define STEP_MAX_S 0.001
#define EXCHANGE_S 0.005

struct sample { /* from an outside plant, little-endian and packed as it is declared */
    double speed_radps[2];  /* of its wheels, as measured */
    double driven_radps[2]; /* the shaft speeds that it had made them follow; NaN: it has motors of its own */
    float acceleration_mps2[3];
    float turn_rate_radps[3];
    float battery_v;
    float battery_a;
    float charge;
    uint8_t bumpers;
    uint8_t emergency_stop;
    uint8_t spare[2];
};

struct wish {
    uint64_t time_us;
    double wanted_radps[2]; /* what the speed loop is asked for */
    double shaft_radps[2];  /* what the motors do */
};

static void motor_step(struct host_plant *plant, size_t i, double dt_s)
{
    const double speed = plant->speed_radps[i];
    /* Bridges that are off short the windings: without power the motors brake. */
    const double supply_v = host.enabled ? (double)host.effort[i] * SUPPLY_V : 0.0;
    const double current = fmin(fmax((supply_v - BACK_EMF * speed) / RESISTANCE, -CHOPPED_A), CHOPPED_A);
    double next = speed + current * TORQUE_PER_A / INERTIA * dt_s;
    const double loss = FRICTION / INERTIA * dt_s;
    next = fabs(next) <= loss ? 0.0 : next - copysign(loss, next);
    plant->current_a[i] = host.enabled ? current : 0.0; /* shorted, nothing comes from the battery */
    plant->angle_rad[i] += 0.5 * (speed + next) * dt_s;
    plant->speed_radps[i] = next;
}

void host_plant_step(double now_s)
{
    struct host_plant *plant = &host.plant;
    double left_s = now_s - plant->stepped_s;

    if (plant->outside_motors || plant->stepped_s == 0.0 || left_s > 1.0) {
        left_s = 0.0;
    }
    while (left_s > 0.0) {
        const double dt_s = fmin(left_s, STEP_MAX_S);
        motor_step(plant, 0u, dt_s);
        motor_step(plant, 1u, dt_s);
        left_s -= dt_s;
    }
    plant->stepped_s = now_s;
}

bool host_plant_open(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return false;
    }
    memcpy(address.sun_path, path, strlen(path));
    (void)unlink(path);
    host.plant.silent_since_s = 1e-6 * (double)hal_time_us(); /* time for its first word */
    host.plant.socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return host.plant.socket >= 0
        && bind(host.plant.socket, (const struct sockaddr *)&address, sizeof address) == 0;
}

static void take_sample(struct host_plant *plant, const struct sample *sample, double now_s)
{
    plant->outside_motors = !isfinite(sample->driven_radps[0]) || !isfinite(sample->driven_radps[1]);
    for (size_t i = 0u; i < 2u; i++) {
        if (plant->outside_motors || !isfinite(plant->speed_radps[i])) {
            plant->speed_radps[i] = sample->speed_radps[i];
            plant->angle_rad[i] +=
                isfinite(sample->speed_radps[i]) ? sample->speed_radps[i] * (now_s - plant->silent_since_s) : 0.0;
        } else {
            plant->speed_radps[i] += sample->speed_radps[i] - sample->driven_radps[i];
        }
    }
    memcpy(plant->acceleration_mps2, sample->acceleration_mps2, sizeof plant->acceleration_mps2);
    memcpy(plant->turn_rate_radps, sample->turn_rate_radps, sizeof plant->turn_rate_radps);
    plant->battery_a = sample->battery_a;
    plant->charge = sample->charge;
    host.forced.battery_v = sample->battery_v;
    host.forced.bumpers = sample->bumpers;
    host.forced.emergency_stop = sample->emergency_stop != 0u;
    plant->silent_since_s = now_s;
}

void host_plant_exchange(double now_s)
{
    static struct sockaddr_un peer;
    static socklen_t peer_size;
    static double wished_s;
    struct host_plant *plant = &host.plant;
    struct sample sample;

    if (plant->socket < 0) {
        return;
    }
    socklen_t size = sizeof peer;
    while (recvfrom(plant->socket, &sample, sizeof sample, 0, (struct sockaddr *)&peer, &size)
           == (ssize_t)sizeof sample) {
        peer_size = size;
        take_sample(plant, &sample, now_s);
        size = sizeof peer;
    }
    if (peer_size > 0u && now_s - wished_s >= EXCHANGE_S) {
        const struct wish wish = {hal_time_us(),
                                  {(double)host.wanted_radps[0], (double)host.wanted_radps[1]},
                                  {plant->speed_radps[0], plant->speed_radps[1]}};
        (void)sendto(plant->socket, &wish, sizeof wish, MSG_DONTWAIT, (const struct sockaddr *)&peer, peer_size);
        wished_s = now_s;
    }
}
