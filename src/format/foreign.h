/*
 * foreign.h
 *	  Refusing files that people take for models of ours. Each returns the
 *	  status of the error that it fills.
 */
#ifndef BICYCLE_FORMAT_FOREIGN_H
#define BICYCLE_FORMAT_FOREIGN_H

#include "format/pickle.h"

/* The bytes start like no format that is read. */
extern FormatStatus foreign_bytes(FormatBuilder *builder);
extern FormatStatus foreign_torchscript(FormatBuilder *builder);

/* A pickle of torch.save holds no dictionary of tensors, but this. */
extern FormatStatus foreign_content(FormatBuilder *builder, const PickleValue *top);

#endif /* BICYCLE_FORMAT_FOREIGN_H */
