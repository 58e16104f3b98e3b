/*
 * version.h
 *	  The version of bicycle, the same for extension, engine and protocol check.
 */
#ifndef BICYCLE_VERSION_H
#define BICYCLE_VERSION_H

#define BICYCLE_VERSION "0.1.0"

#endif /* BICYCLE_VERSION_H */
