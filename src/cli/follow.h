#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "cli/context.h"

namespace relay::cli {

/// Whether a command waits for the relay's work: as the flags say, else on a terminal.
bool waits(const Context& context, std::optional<bool> wish);

/// How the waiting ended.
enum class Followed {
  finished,
  left,      ///< an interrupt: the relay goes on without this command
  no_relay,  ///< none is alive, and no flag asks to wait for one
};

/// Shows the progress of work that `query` looks at: a row of what is done, of how much, and
/// whether it is finished. It ends with the work, and when SIGINT or SIGTERM comes.
Result<Followed> follow(const Context& context, postgres::Connection& connection, std::string what,
                        std::string_view query, const std::string& argument, bool even_alone);

/// Whether any relay is alive, or the error.
Result<bool> relay_runs(postgres::Connection& connection);

}  // namespace relay::cli
