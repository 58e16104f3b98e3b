/*
 * role.c
 *	  The type bicycle_role: the role that a job belongs to, under whatever name
 *	  it has at the moment.
 *
 * R1 Here a role is its OID, which no renaming changes. Outside this cluster,
 *    in a dump or at a subscriber, only a name tells who it is. So a value is
 *    an OID that is written as the name of that moment, and found by its name
 *    when it is read. A name beside the OID would be that of the last time
 *    somebody wrote the row, and by now perhaps another role's.
 * R2 A name without a role is kept, and is the role of that name as soon as
 *    there is one. A row of PostgreSQL's regrole could not be restored at all.
 * R3 A role that was dropped is written as the empty string, which is no role's
 *    name: whoever is given its name later does not get what it had.
 *
 * Values are palloc'ed by the functions that make them. Nothing is kept between
 * calls.
 */
#include "pg/bicycle.h"

#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "parser/scansup.h"
#include "utils/acl.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(bicycle_role_in);
PG_FUNCTION_INFO_V1(bicycle_role_out);
PG_FUNCTION_INFO_V1(bicycle_role_recv);
PG_FUNCTION_INFO_V1(bicycle_role_send);
PG_FUNCTION_INFO_V1(bicycle_role_of);
PG_FUNCTION_INFO_V1(bicycle_role_oid);

/* A varlena, stored plain: its header always has four bytes. */
typedef struct Role
{
	int32 length;
	Oid oid; /* InvalidOid: there was no role of that name when the value was made */
	char name[FLEXIBLE_ARRAY_MEMBER]; /* "" if the OID is valid */
} Role;

static Datum
make_role(Oid oid, const char *name)
{
	Size length = offsetof(Role, name) + strlen(name) + 1;
	Role *role = palloc0(length);

	SET_VARSIZE(role, length);
	role->oid = oid;
	memcpy(role->name, name, strlen(name));
	return PointerGetDatum(role);
}

static Datum
role_named(char *name)
{
	Oid oid;

	truncate_identifier(name, strlen(name), false);
	oid = get_role_oid(name, true);
	return make_role(oid, OidIsValid(oid) ? "" : name);
}

static const char *
name_of(const Role *role)
{
	char *name;

	if (!OidIsValid(role->oid))
		return role->name;
	name = GetUserNameFromId(role->oid, true);
	return name ? name : "";
}

/* bicycle_role_in(cstring) -> bicycle_role */
Datum
bicycle_role_in(PG_FUNCTION_ARGS)
{
	return role_named(pstrdup(PG_GETARG_CSTRING(0)));
}

/* bicycle_role_out(bicycle_role) -> cstring */
Datum
bicycle_role_out(PG_FUNCTION_ARGS)
{
	PG_RETURN_CSTRING(pstrdup(name_of((const Role *) PG_GETARG_POINTER(0))));
}

/* bicycle_role_recv(internal) -> bicycle_role */
Datum
bicycle_role_recv(PG_FUNCTION_ARGS)
{
	StringInfo in = (StringInfo) PG_GETARG_POINTER(0);
	int length;

	return role_named(pq_getmsgtext(in, in->len - in->cursor, &length));
}

/* bicycle_role_send(bicycle_role) -> bytea */
Datum
bicycle_role_send(PG_FUNCTION_ARGS)
{
	const char *name = name_of((const Role *) PG_GETARG_POINTER(0));
	StringInfoData out;

	pq_begintypsend(&out);
	pq_sendtext(&out, name, strlen(name));
	PG_RETURN_BYTEA_P(pq_endtypsend(&out));
}

/* bicycle_role(oid) -> bicycle_role: the cast */
Datum
bicycle_role_of(PG_FUNCTION_ARGS)
{
	return make_role(PG_GETARG_OID(0), "");
}

/*
 * bicycle_role_oid(bicycle_role) -> oid: the cast; 0 if there is no role of
 * that name, and still that of a role that was dropped
 */
Datum
bicycle_role_oid(PG_FUNCTION_ARGS)
{
	const Role *role = (const Role *) PG_GETARG_POINTER(0);

	PG_RETURN_OID(OidIsValid(role->oid) ? role->oid : get_role_oid(role->name, true));
}
