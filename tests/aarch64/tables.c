/* tables.c - prints the tables of kernels that this CPU has, then the one chosen, in one line. */
#include <stdio.h>

#include "kernel/kernel.h"

int main(void) {
    static const char *const names[] = {"scalar", "neon", "i8mm"};
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct kernels *k = kernels_find(names[i]);
        if (k != NULL) {
            printf("%s ", k->isa);
        }
    }
    printf("=> %s\n", kernels_get()->isa);
    return 0;
}
