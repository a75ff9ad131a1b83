// What `check` sees of sources: no position is taken.

#include <chrono>
#include <utility>

#include "backends/pg_outbox/remote_outbox.h"
#include "backends/pg_outbox/table_source.h"
#include "outbox/outbox_info.h"

namespace relay::pg_outbox {

namespace {

constexpr std::chrono::seconds kTimeout{15};

}  // namespace

Inspection RemoteOutbox::inspect(std::stop_token stop) {
  const auto look = [&]() -> Result<void> {
    const Deadline deadline = Deadline::after(kTimeout);
    auto lease = pool_.borrow(deadline, stop);
    if (!lease) return fail(lease.error().in_context("opening the outbox"));
    std::string group = options_.group;
    if (group.empty()) {
      auto made = position_group(context_.database, context_.group, stop);
      if (!made) return fail(made.error());
      group = std::move(*made);
    }
    const auto found =
        outbox::resolve_outbox(**lease, options_.outbox, group, context_.pipeline, deadline, stop);
    if (!found) return fail(found.error());
    return outbox::check_outbox(**lease, *found, deadline, stop);
  };
  return Inspection::of(look());
}

Inspection TableSource::inspect(std::stop_token stop) {
  const auto look = [&]() -> Result<void> {
    const Deadline deadline = Deadline::after(kTimeout);
    auto lease = pool_.borrow(deadline, stop);
    if (!lease) return fail(lease.error().in_context("opening the table"));
    const auto table =
        open_table(**lease, options_, context_.options.max_record_bytes, deadline, stop);
    return table ? Result<void>() : fail(table.error().in_context("opening the table"));
  };
  return Inspection::of(look());
}

}  // namespace relay::pg_outbox
