/* plant.h - faults that tests plant, to see that the figures show them. Nothing else calls this.
 *
 * Threads: the engine thread, between sweeps. */
#ifndef RESIDENCY_PLANT_H
#define RESIDENCY_PLANT_H

enum residency_plant {
    RESIDENCY_PLANT_NONE,
    RESIDENCY_PLANT_BUDGET,   /* twice the budget is used */
    RESIDENCY_PLANT_BUFFERED, /* direct reads go through the page cache */
    RESIDENCY_PLANT_TWICE,    /* everything is read twice, and counted once */
    RESIDENCY_PLANT_UNWIRED,  /* wired memory is taken away after it was filled */
    RESIDENCY_PLANT_SHIFT,    /* reads come from one sector further on */
};

void residency_plant(enum residency_plant fault);
enum residency_plant residency_planted(void);

#endif
