/*
 * dnnl_compat.h
 *	  The few calls of oneDNN that we use, in one form for its 2.x and 3.x C
 *	  interfaces.
 *
 * 2.x passes memory descriptors as structures and builds a primitive through an
 * operation descriptor; 3.x hides both. Here a descriptor is made into a
 * DnnlDesc, passed on as a DnnlDescRef and freed by dnnl_desc_free.
 */
#ifndef BICYCLE_NN_CPU_DNNL_COMPAT_H
#define BICYCLE_NN_CPU_DNNL_COMPAT_H

#include <oneapi/dnnl/dnnl.h>

#if DNNL_VERSION_MAJOR >= 3

typedef dnnl_memory_desc_t DnnlDesc;
typedef const_dnnl_memory_desc_t DnnlDescRef;

static inline DnnlDescRef
dnnl_desc_ref(const DnnlDesc *desc)
{
	return *desc;
}

static inline dnnl_status_t
dnnl_desc_init(DnnlDesc *desc, int ndims, const dnnl_dims_t dims, dnnl_data_type_t type,
			   dnnl_format_tag_t tag)
{
	return dnnl_memory_desc_create_with_tag(desc, ndims, dims, type, tag);
}

static inline void
dnnl_desc_free(DnnlDesc *desc)
{
	dnnl_memory_desc_destroy(*desc);
}

#else

typedef dnnl_memory_desc_t DnnlDesc;
typedef const dnnl_memory_desc_t *DnnlDescRef;

static inline DnnlDescRef
dnnl_desc_ref(const DnnlDesc *desc)
{
	return desc;
}

static inline dnnl_status_t
dnnl_desc_init(DnnlDesc *desc, int ndims, const dnnl_dims_t dims, dnnl_data_type_t type,
			   dnnl_format_tag_t tag)
{
	return dnnl_memory_desc_init_by_tag(desc, ndims, dims, type, tag);
}

static inline void
dnnl_desc_free(DnnlDesc *desc)
{
}

#endif

/*
 * A forward convolution without bias, undilated, for inference; pad is {top,
 * left} and {bottom, right}.
 */
static inline dnnl_status_t
dnnl_conv_desc(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, DnnlDescRef src,
			   DnnlDescRef weights, DnnlDescRef dst, const dnnl_dims_t stride,
			   const dnnl_dims_t pad_begin, const dnnl_dims_t pad_end,
			   const_dnnl_primitive_attr_t attr)
{
#if DNNL_VERSION_MAJOR >= 3
	static const dnnl_dims_t dilation = { 0, 0 };

	return dnnl_convolution_forward_primitive_desc_create(
		pd, engine, dnnl_forward_inference, dnnl_convolution_direct, src, weights, NULL, dst,
		stride, dilation, pad_begin, pad_end, attr);
#else
	dnnl_convolution_desc_t op;
	dnnl_status_t status =
		dnnl_convolution_forward_desc_init(&op, dnnl_forward_inference, dnnl_convolution_direct,
										   src, weights, NULL, dst, stride, pad_begin, pad_end);

	return status == dnnl_success ? dnnl_primitive_desc_create(pd, &op, attr, engine, NULL)
								  : status;
#endif
}

#endif /* BICYCLE_NN_CPU_DNNL_COMPAT_H */
