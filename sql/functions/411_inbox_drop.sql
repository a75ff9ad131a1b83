-- How inboxes are dropped.

-- The statements that drop the views of an inbox: those of their names that read its table.
create or replace function pgtrickle_internal.inbox_drop_views_script(
  inbox pgtrickle.pgt_inbox_config) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(string_agg(format('drop view %s;', v.view), ''), '')
  from unnest(array[inbox.pending_view, inbox.dlq_view, inbox.stats_view]) as n (name)
  cross join lateral (select pgtrickle_internal.inbox_view(inbox, n.name) as view) v
  where v.view is not null;
$$;

-- Drops an inbox: its views, and its table where create_inbox made it and `keep_table` does not say
-- otherwise. What depends on the table (a stream table) must go first. A pipeline that still names
-- the inbox makes it again when it starts.
create or replace function pgtrickle.drop_inbox(name text, if_exists boolean default false,
                                                keep_table boolean default false) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  inbox pgtrickle.pgt_inbox_config;
begin
  if if_exists and not exists (select from pgtrickle_internal.find_inbox(name)) then
    raise notice 'there is no inbox "%"', name;
    return;
  end if;
  inbox := pgtrickle_internal.inbox_named(name);
  if inbox.gate_function is null and inbox.table_schema = 'pgtrickle' then
    perform pgtrickle_internal.drop_own_inbox(inbox.inbox_name, keep_table);
  else
    execute pgtrickle_internal.inbox_drop_script(inbox, keep_table);
    perform pgtrickle_internal.gate_drop(inbox.gate_function);
    perform pgtrickle_internal.forget_inbox(inbox.inbox_name);
  end if;
end $$;
comment on function pgtrickle.drop_inbox(text, boolean, boolean) is
  'Drops an inbox with its views, and the table that create_inbox made unless it is to be kept';

create or replace function pgtrickle_internal.inbox_drop_script(inbox pgtrickle.pgt_inbox_config,
                                                                keep_table boolean) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select pgtrickle_internal.inbox_drop_views_script(inbox)
         || case when inbox.made_here and not keep_table
                      and pgtrickle_internal.inbox_relation(inbox) = inbox.relation
                 then format('drop table %s;', pgtrickle_internal.inbox_table(inbox))
                 else '' end;
$$;

-- Takes an inbox whose table is not ours out of the catalog, once its table or the function that
-- works on it is gone: only those who may drop these can have done that.
create or replace function pgtrickle_internal.forget_inbox(name text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  inbox pgtrickle.pgt_inbox_config;
begin
  select * into strict inbox from pgtrickle_internal.find_inbox(name);
  if exists (select from pg_class c where c.oid = inbox.relation)
     and (inbox.gate_function is null
          or pgtrickle_internal.gate_owner(inbox.gate_function) is not null) then
    raise exception 'inbox "%" is dropped by the owner of its table', name
      using errcode = 'insufficient_privilege',
            hint = coalesce((pgtrickle_internal.inbox_problem(inbox)).remedy,
                            'Let that role or a superuser call pgtrickle.drop_inbox().');
  end if;
  delete from pgtrickle.pgt_inbox_config c where c.inbox_name = name;
end $$;

-- Drops an inbox whose table is ours, or is gone.
create or replace function pgtrickle_internal.drop_own_inbox(name text, keep_table boolean)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  inbox pgtrickle.pgt_inbox_config;
begin
  select * into strict inbox from pgtrickle_internal.find_inbox(name);
  if pgtrickle_internal.inbox_is_ours(inbox) then
    execute pgtrickle_internal.inbox_drop_script(inbox, keep_table);
    delete from pgtrickle_internal.inbox_tables t
    where not exists (select from pg_class c where c.oid = t.relation);
    delete from pgtrickle.pgt_inbox_config c where c.inbox_name = name;
  else
    perform pgtrickle_internal.forget_inbox(name);
  end if;
end $$;

-- What administrators reach with their own rights, by what they call.
grant execute on function
  pgtrickle_internal.inbox_drop_views_script(pgtrickle.pgt_inbox_config),
  pgtrickle_internal.inbox_drop_script(pgtrickle.pgt_inbox_config, boolean),
  pgtrickle_internal.forget_inbox(text), pgtrickle_internal.drop_own_inbox(text, boolean)
  to pgtrickle_admin;
