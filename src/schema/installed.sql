-- What the database side consists of in this database: a line for each object, in the form of
-- sql/manifest.txt. It begins with the kind and the name; after a tab each follow its attributes.
-- $1: the tables, views and sequences that are looked at; null: all that are in the schemas below.
--
-- Calls nothing but PostgreSQL's own functions: what the database side contains cannot answer for
-- itself. Needs no privilege, and gives the same lines on every version of PostgreSQL. Runs with
-- search_path = pg_catalog, pg_temp: every name of ours then has its schema.
with
  -- The schemas whose objects init creates; in those of `users_objects` users have objects, and
  -- only the schema itself is ours.
  schemas (name, users_objects) as (values
    ('pgtrickle', false), ('pgtrickle_internal', false), ('pgtrickle_gate', false),
    ('pgtrickle_json', false),
    ('pgtrickle_streams', true), ('pgtrickle_changes', true)),
  -- Our roles; those that are not `granted` to anyone own functions that other roles call.
  roles (name, granted) as (values
    ('pgtrickle_owner', false), ('pgtrickle_capture', false), ('pgtrickle_sandbox', false),
    ('pgtrickle_observer', false), ('pgtrickle_relay', true), ('pgtrickle_publisher', true),
    ('pgtrickle_consumer', true), ('pgtrickle_admin', true)),
  known_role as materialized (
    select r.oid, r.rolname as name, w.granted, r.rolsuper, r.rolcreaterole, r.rolcreatedb,
           r.rolreplication, r.rolbypassrls, r.rolcanlogin, r.rolinherit
    from roles w join pg_catalog.pg_roles r on r.rolname = w.name),
  namespace as materialized (
    select n.oid, n.nspname as name, n.nspowner as owner, n.nspacl as acl, s.users_objects
    from schemas s join pg_catalog.pg_namespace n on n.nspname = s.name),
  of_extension as materialized (
    select d.classid as class, d.objid as id, 'extension=' || e.extname as attribute
    from pg_catalog.pg_depend d join pg_catalog.pg_extension e on e.oid = d.refobjid
    where d.deptype = 'e' and d.refclassid = 'pg_catalog.pg_extension'::regclass),
  relation as materialized (
    select c.oid, c.relkind as kind, pg_catalog.format('%I.%I', n.name, c.relname) as name,
           n.name as schema, c.relowner as owner, c.relacl as acl, c.relpersistence as persistence,
           c.relrowsecurity or c.relforcerowsecurity as row_security, c.reloptions as options,
           c.relreplident as replica_identity, c.reltoastrelid as toast, x.attribute as extension
    from namespace n
    join pg_catalog.pg_class c on c.relnamespace = n.oid
    left join of_extension x on x.class = 'pg_catalog.pg_class'::regclass and x.id = c.oid
    where not n.users_objects and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
      and ($1::text[] is null
           or pg_catalog.format('%I.%I', n.name, c.relname)
              in (select pg_catalog.unnest($1::text[])))),
  -- Functions that outboxes have of their own are left out.
  routine as materialized (
    select p.oid, p.schema, p.proowner as owner, p.proacl as acl, x.attribute as extension,
           pg_catalog.format('%I.%I(%s)', p.schema, p.proname,
                             pg_catalog.oidvectortypes(p.proargtypes)) as name
    from (select f.oid, f.proowner, f.proacl, f.proname, f.proargtypes, n.name as schema
          from namespace n join pg_catalog.pg_proc f on f.pronamespace = n.oid
          where not n.users_objects
          offset 0) p  -- else each function of PostgreSQL is compared with the pattern
    left join of_extension x on x.class = 'pg_catalog.pg_proc'::regclass and x.id = p.oid
    where p.proname !~ '^_?capture_[0-9]'),
  type as materialized (
    select t.oid, t.typowner as owner, t.typacl as acl, x.attribute as extension,
           pg_catalog.format('%I.%I', n.name, t.typname) as name
    from namespace n
    join pg_catalog.pg_type t on t.typnamespace = n.oid
    left join pg_catalog.pg_class c on c.oid = t.typrelid
    left join of_extension x on x.class = 'pg_catalog.pg_type'::regclass and x.id = t.oid
    where not n.users_objects and (t.typtype in ('e', 'd', 'r') or c.relkind = 'c')),
  -- What no role but ours needs on tables, views and sequences.
  harmful_on_relations (schema, harmful) as (values
    ('pgtrickle', '{INSERT,UPDATE,DELETE,TRUNCATE,TRIGGER,REFERENCES}'::text[]),
    ('pgtrickle_internal', '{INSERT,UPDATE,DELETE,TRUNCATE,TRIGGER,REFERENCES}'),
    ('pgtrickle_json', '{}'),
    ('pgtrickle_gate', '{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,TRIGGER,REFERENCES,USAGE}')),
  -- Who may do what: PUBLIC and our roles. What is granted to other roles is the administrator's
  -- own, apart from what could run code with our rights, make our statements fail, change what
  -- only our functions write, or open the gate (`harmful`). MAINTAIN, which PostgreSQL 14 does not
  -- know, is left out.
  access_list (class, id, part, owner, acl, usual, harmful) as (
    select 'pg_catalog.pg_namespace'::regclass, n.oid, 0, n.owner, n.acl,
           pg_catalog.acldefault('n', n.owner),
           case when n.name = 'pgtrickle_gate' then '{CREATE,USAGE}'::text[]
                when not n.users_objects then '{CREATE}' else '{}' end
    from namespace n
    union all
    select 'pg_catalog.pg_class'::regclass, r.oid, 0, r.owner, r.acl,
           pg_catalog.acldefault(case r.kind when 'S' then 's' else 'r' end::"char", r.owner),
           h.harmful
    from relation r join harmful_on_relations h on h.schema = r.schema
    union all
    select 'pg_catalog.pg_class'::regclass, r.oid, a.attnum, r.owner, a.attacl,
           pg_catalog.acldefault('c', r.owner), h.harmful
    from relation r
    join harmful_on_relations h on h.schema = r.schema
    join pg_catalog.pg_attribute a on a.attrelid = r.oid
    where a.attacl is not null and not a.attisdropped
    union all
    select 'pg_catalog.pg_proc'::regclass, f.oid, 0, f.owner, f.acl,
           pg_catalog.acldefault('f', f.owner),
           case when f.schema in ('pgtrickle_internal', 'pgtrickle_gate') then '{EXECUTE}'::text[]
                else '{}' end
    from routine f
    union all
    select 'pg_catalog.pg_type'::regclass, t.oid, 0, t.owner, t.acl,
           pg_catalog.acldefault('T', t.owner), '{}'
    from type t),
  privilege as (
    select l.class, l.id, l.part,
           pg_catalog.format('grants %s=%s', w.name, pg_catalog.string_agg(
             distinct (g.privilege_type || case when g.is_grantable then '*' else '' end)
                      collate "C", ',')) as attribute
    from access_list l
    cross join lateral pg_catalog.aclexplode(coalesce(l.acl, l.usual)) g
    left join known_role k on k.oid = g.grantee
    left join pg_catalog.pg_roles o on k.oid is null and o.oid = g.grantee and not o.rolsuper
      and g.privilege_type = any (l.harmful)
    cross join lateral (
      select coalesce(k.name, pg_catalog.quote_ident(o.rolname),
                      case when g.grantee = 0 then 'PUBLIC' end) as name) w
    where g.grantee <> l.owner and w.name is not null and g.privilege_type <> 'MAINTAIN'
    group by l.class, l.id, l.part, w.name
    union all
    select l.class, l.id, l.part,
           'owner lacks=' || pg_catalog.string_agg(u.privilege_type, ','
                                                   order by u.privilege_type collate "C")
    from access_list l
    cross join lateral pg_catalog.aclexplode(l.usual) u
    where l.acl is not null and u.grantee = l.owner and u.privilege_type <> 'MAINTAIN'
      and not exists (select from pg_catalog.aclexplode(l.acl) g
                      where g.grantee = l.owner and g.privilege_type = u.privilege_type)
    group by l.class, l.id, l.part),
  granted as materialized (
    select p.class, p.id, p.part,
           pg_catalog.array_agg(p.attribute order by p.attribute collate "C") as attributes
    from privilege p group by p.class, p.id, p.part),
  object (name, attributes) as (
    select 'role ' || pg_catalog.quote_ident(k.name), array[
      'attributes=' || nullif(pg_catalog.concat_ws(' ',
        case when k.rolsuper then 'SUPERUSER' end, case when k.rolcreaterole then 'CREATEROLE' end,
        case when k.rolcreatedb then 'CREATEDB' end,
        case when k.rolreplication then 'REPLICATION' end,
        case when k.rolbypassrls then 'BYPASSRLS' end,
        case when k.rolcanlogin and not k.granted then 'LOGIN' end,
        case when not k.rolinherit then 'NOINHERIT' end), ''),
      -- pg_read_all_stats is granted where that is possible.
      (select 'member of=' || pg_catalog.string_agg(distinct r.rolname, ',')
       from pg_catalog.pg_auth_members m
       join pg_catalog.pg_roles r on r.oid = m.roleid
       where m.member = k.oid and r.rolname <> 'pg_read_all_stats'
         and (not k.granted or r.oid in (select o.oid from known_role o))),
      -- Who can act as a role that owns what others call. Superusers can anyway, and a role that
      -- may create roles is the one that installed here, or could make itself a member.
      case when not k.granted then
        (select 'members=' || pg_catalog.string_agg(
           distinct pg_catalog.concat(pg_catalog.quote_ident(r.rolname), ' GRANTED BY '
             || case when not g.rolsuper then pg_catalog.quote_ident(g.rolname) end), ',')
         from pg_catalog.pg_auth_members m
         join pg_catalog.pg_roles r on r.oid = m.member
         left join pg_catalog.pg_roles g on g.oid = m.grantor
         where m.roleid = k.oid and not r.rolsuper and not r.rolcreaterole
           and r.oid not in (select o.oid from known_role o)) end]
    from known_role k
    union all
    select 'schema ' || pg_catalog.quote_ident(n.name),
           case when x.attribute is not null then array[x.attribute] else
             array['owner=' || pg_catalog.pg_get_userbyid(n.owner)] || g.attributes end
    from namespace n
    left join of_extension x on x.class = 'pg_catalog.pg_namespace'::regclass and x.id = n.oid
    left join granted g on g.class = 'pg_catalog.pg_namespace'::regclass and g.id = n.oid
    union all
    select case when r.kind in ('v', 'm') then 'view ' else 'table ' end || r.name,
           case when r.extension is not null then array[r.extension] else array[
             'owner=' || pg_catalog.pg_get_userbyid(r.owner),
             case when r.persistence <> 'p' then 'persistence=' || r.persistence::text end,
             case r.kind when 'p' then 'kind=partitioned' when 'f' then 'kind=foreign'
                         when 'm' then 'kind=materialized' end,
             case when r.row_security then 'row security=enabled' end,
             -- A publication refuses updates of a table whose rows it cannot identify.
             case when r.replica_identity = 'n' and r.kind in ('r', 'p')
                    or (r.replica_identity = 'i' and not exists (
                      select from pg_catalog.pg_index i
                      where i.indrelid = r.oid and i.indisreplident))
                  then 'replica identity=nothing' end,
             (select 'autovacuum=off'
              from pg_catalog.pg_class c
              where c.oid in (r.oid, r.toast) and c.relkind in ('r', 't')
                and exists (select from pg_catalog.pg_options_to_table(c.reloptions) o
                            where o.option_name = 'autovacuum_enabled'
                              and not o.option_value::boolean)
              limit 1),
             (select 'children=' || pg_catalog.string_agg(i.inhrelid::pg_catalog.regclass::text, ','
                                                          order by i.inhrelid)
              from pg_catalog.pg_inherits i where i.inhparent = r.oid),
             (select 'parents=' || pg_catalog.string_agg(i.inhparent::pg_catalog.regclass::text, ','
                                                         order by i.inhparent)
              from pg_catalog.pg_inherits i where i.inhrelid = r.oid),
             case when r.kind = 'v' then
               'options=' || pg_catalog.array_to_string(r.options, ', ') end,
             (select 'uses=' || pg_catalog.string_agg(distinct
                       case d.refclassid when 'pg_catalog.pg_class'::regclass
                         then d.refobjid::pg_catalog.regclass::text
                         else d.refobjid::pg_catalog.regprocedure::text end collate "C", ', ')
              from pg_catalog.pg_rewrite w
              join pg_catalog.pg_depend d
                on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = w.oid
              where w.ev_class = r.oid and r.kind in ('v', 'm') and d.refobjid <> r.oid
                and d.refclassid in ('pg_catalog.pg_class'::regclass,
                                     'pg_catalog.pg_proc'::regclass)),
             -- Newer versions write no table before a column where there is only one. What such a
             -- prefix could stand for is in `uses`.
             case when r.kind in ('v', 'm') then 'definition=' || pg_catalog.left(pg_catalog.encode(
               pg_catalog.sha256(pg_catalog.decode(pg_catalog.replace(pg_catalog.regexp_replace(
                 pg_catalog.pg_get_viewdef(r.oid), '[[:space:]]|\m[a-z_]+[.]', '', 'g'),
                 pg_catalog.chr(92), pg_catalog.repeat(pg_catalog.chr(92), 2)), 'escape')),
               'hex'), 32) end]
             || g.attributes end
    from relation r
    left join granted g on g.class = 'pg_catalog.pg_class'::regclass and g.id = r.oid and g.part = 0
    where r.kind <> 'S'
    union all
    select 'column ' || pg_catalog.format('%s.%I', r.name, a.attname), array[
             case when r.kind in ('v', 'm') then 'view=' else 'table=' end || r.name,
             'type=' || pg_catalog.format_type(a.atttypid, a.atttypmod),
             case when a.attnotnull then 'not null=' || case when exists (
               select from pg_catalog.pg_constraint c
               where c.conrelid = r.oid and c.contype = 'n' and c.conkey = array[a.attnum]
                 and not c.convalidated) then 'not valid' else 'yes' end end,
             case a.attgenerated when '' then 'default=' else 'generated=' end
               || pg_catalog.pg_get_expr(d.adbin, d.adrelid),
             case a.attidentity when 'a' then 'identity=ALWAYS' when 'd' then 'identity=BY DEFAULT'
                                end,
             case when a.attcollation <> t.typcollation then 'collation=' || l.collname end,
             -- Not PostgreSQL's own: of those no dependency is recorded.
             case when t.typtype = 'd' or exists (
               select from pg_catalog.pg_depend e
               where e.classid = 'pg_catalog.pg_attrdef'::regclass and e.objid = d.oid
                 and e.refclassid in ('pg_catalog.pg_proc'::regclass,
                                      'pg_catalog.pg_operator'::regclass))
               then 'evaluates=yes' end]
           || case when a.attacl is not null then
                (select g.attributes from granted g
                 where g.class = 'pg_catalog.pg_class'::regclass and g.id = r.oid
                   and g.part = a.attnum) end
    from relation r
    join pg_catalog.pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
    join pg_catalog.pg_type t on t.oid = a.atttypid
    left join pg_catalog.pg_attrdef d on d.adrelid = r.oid and d.adnum = a.attnum
    left join pg_catalog.pg_collation l on l.oid = a.attcollation
    where r.kind <> 'S' and r.extension is null
    union all
    select 'constraint ' || pg_catalog.format('%s.%I', r.name, c.conname), array[
             'table=' || r.name, 'definition=' || pg_catalog.pg_get_constraintdef(c.oid),
             case when exists (select from pg_catalog.pg_trigger t
                               where t.tgconstraint = c.oid and t.tgisinternal
                                 and t.tgenabled <> 'O') then 'triggers=disabled' end,
             case when not (x.indisvalid and x.indisready) then 'invalid=yes' end]
    from relation r
    join pg_catalog.pg_constraint c on c.conrelid = r.oid
    left join pg_catalog.pg_index x on x.indexrelid = c.conindid and x.indrelid = r.oid
    where c.contype in ('p', 'u', 'f', 'c', 'x') and r.extension is null
    union all
    select 'index ' || pg_catalog.format('%I.%I', n.nspname, i.relname), array[
             'table=' || r.name, 'definition=' || pg_catalog.pg_get_indexdef(i.oid),
             case when x.indisunique then 'unique=yes' end,
             case when x.indexprs is not null or x.indpred is not null then 'evaluates=yes' end,
             case when not x.indisvalid or not x.indisready then 'invalid=yes' end]
    from relation r
    join pg_catalog.pg_index x on x.indrelid = r.oid
    join pg_catalog.pg_class i on i.oid = x.indexrelid
    join pg_catalog.pg_namespace n on n.oid = i.relnamespace
    where r.extension is null
      and not exists (select from pg_catalog.pg_constraint c
                      where c.conindid = i.oid and c.contype in ('p', 'u', 'x'))
    union all
    select 'trigger ' || pg_catalog.format('%s.%I', r.name, t.tgname), array[
             'table=' || r.name,
             'definition=' || pg_catalog.pg_get_triggerdef(t.oid),
             'fires=' || case t.tgenabled when 'O' then 'on origin' when 'D' then 'never'
                                          when 'R' then 'on replica' else 'always' end]
    from relation r join pg_catalog.pg_trigger t on t.tgrelid = r.oid
    where not t.tgisinternal and r.extension is null
    union all
    select 'rule ' || pg_catalog.format('%s.%I', r.name, w.rulename), array[
             'table=' || r.name, 'definition=' || pg_catalog.pg_get_ruledef(w.oid)]
    from relation r join pg_catalog.pg_rewrite w on w.ev_class = r.oid
    where w.rulename <> '_RETURN' and r.extension is null
    union all
    select 'policy ' || pg_catalog.format('%s.%I', r.name, p.polname), array['table=' || r.name]
    from relation r join pg_catalog.pg_policy p on p.polrelid = r.oid
    where r.extension is null
    union all
    select 'sequence ' || r.name,
           case when r.extension is not null then array[r.extension] else array[
             'owner=' || pg_catalog.pg_get_userbyid(r.owner),
             (select 'table=' || o.name
              from pg_catalog.pg_depend d join relation o on o.oid = d.refobjid
              where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = r.oid
                and d.refclassid = 'pg_catalog.pg_class'::regclass and d.deptype in ('a', 'i')),
             case when r.persistence <> 'p' and not exists (
               select from pg_catalog.pg_depend d join relation o on o.oid = d.refobjid
               where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = r.oid
                 and d.refclassid = 'pg_catalog.pg_class'::regclass and d.deptype in ('a', 'i')
                 and o.persistence = r.persistence)
               then 'persistence=' || r.persistence::text end,
             'type=' || pg_catalog.format_type(s.seqtypid, null),
             'start=' || s.seqstart, 'increment=' || s.seqincrement, 'cache=' || s.seqcache,
             'minvalue=' || s.seqmin, 'maxvalue=' || s.seqmax,
             case when s.seqcycle then 'cycle=yes' end] || g.attributes end
    from relation r
    join pg_catalog.pg_sequence s on s.seqrelid = r.oid
    left join granted g on g.class = 'pg_catalog.pg_class'::regclass and g.id = r.oid and g.part = 0
    union all
    select 'type ' || y.name,
           case when y.extension is not null then array[y.extension] else array[
             'owner=' || pg_catalog.pg_get_userbyid(y.owner),
             'kind=' || case t.typtype when 'e' then 'enum' when 'd' then 'domain'
                                       when 'r' then 'range' else 'composite' end,
             'labels=' || (select pg_catalog.string_agg(e.enumlabel, ',' order by e.enumsortorder)
                           from pg_catalog.pg_enum e where e.enumtypid = t.oid),
             'columns=' || (select pg_catalog.string_agg(
                              a.attname || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod),
                              ', ' order by a.attnum)
                            from pg_catalog.pg_attribute a
                            where a.attrelid = t.typrelid and a.attnum > 0
                              and not a.attisdropped),
             case when t.typtype = 'd' then
               'base=' || pg_catalog.format_type(t.typbasetype, t.typtypmod) end,
             case when t.typnotnull then 'not null=yes' end,
             'default=' || t.typdefault,
             'checks=' || (select pg_catalog.string_agg(pg_catalog.pg_get_constraintdef(c.oid), ' '
                                                        order by c.conname)
                           from pg_catalog.pg_constraint c
                           where c.contypid = t.oid and c.contype = 'c')] || g.attributes end
    from type y
    join pg_catalog.pg_type t on t.oid = y.oid
    left join granted g on g.class = 'pg_catalog.pg_type'::regclass and g.id = y.oid
    union all
    select 'function ' || f.name,
           case when f.extension is not null then array[f.extension] else array[
             'owner=' || pg_catalog.pg_get_userbyid(f.owner),
             case when p.prokind <> 'f' then 'kind=' || p.prokind::text end,
             'arguments=' || nullif(pg_catalog.pg_get_function_arguments(p.oid), ''),
             'result=' || pg_catalog.pg_get_function_result(p.oid),
             'language=' || l.lanname,
             'volatility=' || case p.provolatile when 'i' then 'immutable' when 's' then 'stable'
                                                 else 'volatile' end,
             'security=' || case when p.prosecdef then 'definer' else 'invoker' end,
             case when p.proisstrict then 'strict=yes' end,
             case when p.proleakproof then 'leakproof=yes' end,
             case p.proparallel when 's' then 'parallel=safe' when 'r' then 'parallel=restricted'
                                end,
             'set=' || pg_catalog.array_to_string(p.proconfig, '; '),
             (select 'dropped with=' || pg_catalog.string_agg(e.extname, ',' order by e.extname)
              from pg_catalog.pg_depend d
              join pg_catalog.pg_extension e on e.oid = d.refobjid
              where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid
                and d.refclassid = 'pg_catalog.pg_extension'::regclass and d.deptype = 'x'),
             -- The bytes of the text, in whatever encoding: `decode` takes them as they are.
             'body=' || pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.decode(
               pg_catalog.replace(pg_catalog.concat(p.prosrc, pg_catalog.pg_get_function_sqlbody(
                 p.oid)), pg_catalog.chr(92), pg_catalog.repeat(pg_catalog.chr(92), 2)),
               'escape')), 'hex'), 32)] || g.attributes end
    from routine f
    join pg_catalog.pg_proc p on p.oid = f.oid
    join pg_catalog.pg_language l on l.oid = p.prolang
    left join granted g on g.class = 'pg_catalog.pg_proc'::regclass and g.id = f.oid)
select l.line
from object o
cross join lateral (select pg_catalog.translate(
  pg_catalog.array_to_string(array[o.name] || o.attributes, pg_catalog.chr(1)),
  pg_catalog.concat(pg_catalog.chr(9), pg_catalog.chr(10), pg_catalog.chr(13), pg_catalog.chr(1)),
  '   ' || pg_catalog.chr(9))) l (line)
order by l.line collate "C"
