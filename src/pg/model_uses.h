/*
 * model_uses.h
 *	  Objects of the database that name versions of models.
 */
#ifndef BICYCLE_MODEL_USES_H
#define BICYCLE_MODEL_USES_H

#include "pg/bicycle.h"

/*
 * 2BP01 if the catalog names the version (0: any) of the model; nothing if
 * bicycle.force_drop is on. `action` is what cannot be done, "drop" or
 * "rename". Within SPI_connect.
 */
extern void model_check_unnamed(const char *model, int version, const char *action);

#endif /* BICYCLE_MODEL_USES_H */
