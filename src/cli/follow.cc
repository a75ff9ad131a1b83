#include "cli/follow.h"

#include <chrono>
#include <utility>

#include "cli/interrupt.h"
#include "cli/progress.h"
#include "cli/terminal.h"
#include "core/deadline.h"

namespace relay::cli {

namespace {

constexpr std::chrono::seconds kTimeout{30};
constexpr double kLookEverySeconds = 0.2;

}  // namespace

bool waits(const Context& context, std::optional<bool> wish) {
  return wish.value_or(!context.json && Terminal::out().is_terminal && Terminal::err().is_terminal);
}

Result<bool> relay_runs(postgres::Connection& connection) {
  const auto alive =
      connection.query("select exists (select from pgtrickle.relay_instances_now() where alive)",
                       {}, Deadline::after(kTimeout), {});
  if (!alive) return fail(alive.error());
  return alive->boolean(0, 0);
}

Result<Followed> follow(const Context& context, postgres::Connection& connection, std::string what,
                        std::string_view query, const std::string& argument, bool even_alone) {
  const Interrupt interrupt;
  Progress progress(std::move(what), context.json);
  for (;;) {
    const auto rows = connection.query(query, {argument}, Deadline::after(kTimeout), {});
    if (!rows) return fail(rows.error());
    if (rows->empty() || rows->boolean(0, 2)) return Followed::finished;
    progress.show(rows->integer(0, 0), rows->integer(0, 1));
    if (!even_alone) {
      const auto alive = relay_runs(connection);
      if (!alive) return fail(alive.error());
      if (!*alive) return Followed::no_relay;
    }
    if (interrupt.wait(kLookEverySeconds)) return Followed::left;
  }
}

}  // namespace relay::cli
