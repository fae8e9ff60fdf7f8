#include "host.h"

#include <string.h>

int main(int count, char **arguments)
{
    const char *mode = count > 1 ? arguments[1] : "";

    host_init();
    if (strcmp(mode, "emulate") == 0) {
        return host_emulate(count - 2, arguments + 2);
    }
    if (strcmp(mode, "replay") == 0) {
        return host_replay(count - 2, arguments + 2);
    }
    if (strcmp(mode, "codec") == 0) {
        return host_codec();
    }
    if (strcmp(mode, "fuzz") == 0) {
        return host_fuzz(count - 2, arguments + 2);
    }
    if (strcmp(mode, "cut") == 0) {
        return host_cut(count - 2, arguments + 2);
    }
    fprintf(stderr, "usage: %s emulate|replay|codec|fuzz|cut\n", arguments[0]);
    return 2;
}
