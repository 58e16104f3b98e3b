/*
 * version.h
 *	  The version of bicycle, the same for extension, engine and protocol check:
 *	  what bicycle.control says, which test/t/022_update.pl compares.
 */
#ifndef BICYCLE_VERSION_H
#define BICYCLE_VERSION_H

#define BICYCLE_VERSION "0.2"

#endif /* BICYCLE_VERSION_H */
