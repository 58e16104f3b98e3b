/*
 * bicycle.c
 *	  Entry of the library.
 *
 * Nothing is started here but, when the library is preloaded, the registration
 * of supervisor and launcher. No thread, no neural library and no device is
 * ever touched in a process of PostgreSQL.
 */
#include "bicycle.h"

#include "miscadmin.h"

#include "batch.h"
#include "call.h"
#include "catalog.h"
#include "model_stream.h"

BicycleModuleMagic(BICYCLE_VERSION);

void _PG_init(void);

void
_PG_init(void)
{
	settings_define();
	catalog_init();
	calls_init(model_stream_load);
	batch_init();
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
	{
		shared_reserve();
		sole_workers_preload();
	}
}
