#include "cli/output.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "config/redaction.h"
#include "core/deadline.h"

namespace relay::cli {

namespace {

constexpr std::chrono::seconds kTimeout{30};
constexpr std::size_t kWidest = 100;

/// Characters, not bytes: names may hold any letter.
std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

void print_padded(std::string_view text, std::size_t columns, bool last) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  if (last) return;
  const std::size_t used = width(text);
  for (std::size_t i = used; i < columns + 2; ++i) std::fputc(' ', stdout);
}

}  // namespace

void print_table(const postgres::Rows& rows) {
  const int columns = rows.get() ? PQnfields(rows.get()) : 0;
  std::vector<std::size_t> widths;
  std::vector<std::string> cells;  // column by column
  for (int column = 0; column < columns; ++column) {
    std::size_t widest = width(PQfname(rows.get(), column));
    for (int row = 0; row < rows.size(); ++row) {
      cells.push_back(config::redacted_column(PQfname(rows.get(), column), rows.text(row, column)));
      widest = std::max(widest, width(cells.back()));
    }
    widths.push_back(std::min(widest, kWidest));
  }
  const bool terminal = ::isatty(STDOUT_FILENO) != 0;
  if (terminal) std::fputs("\033[1m", stdout);
  for (int column = 0; column < columns; ++column) {
    print_padded(PQfname(rows.get(), column), widths[static_cast<std::size_t>(column)],
                 column + 1 == columns);
  }
  std::fputs(terminal ? "\033[0m\n" : "\n", stdout);
  for (int row = 0; row < rows.size(); ++row) {
    for (int column = 0; column < columns; ++column) {
      print_padded(cells[static_cast<std::size_t>(column * rows.size() + row)],
                   widths[static_cast<std::size_t>(column)], column + 1 == columns);
    }
    std::fputc('\n', stdout);
  }
}

void print_record(const postgres::Rows& rows) {
  const int columns = rows.get() ? PQnfields(rows.get()) : 0;
  std::size_t widest = 0;
  for (int column = 0; column < columns; ++column) {
    widest = std::max(widest, width(PQfname(rows.get(), column)));
  }
  for (int row = 0; row < rows.size(); ++row) {
    if (row > 0) std::fputc('\n', stdout);
    for (int column = 0; column < columns; ++column) {
      if (rows.is_null(row, column)) continue;
      const std::string_view name = PQfname(rows.get(), column);
      print_padded(name, widest, false);
      fmt::print("{}\n", config::redacted_column(name, rows.text(row, column)));
    }
  }
}

int print_json(postgres::Connection& connection, std::string_view sql,
               std::initializer_list<postgres::Param> params) {
  const auto rows = connection.query(sql, params, Deadline::after(kTimeout), {});
  if (!rows) return failed(rows.error());
  fmt::print("{}\n", config::redacted_rows(rows->text(0, 0)));
  return kOk;
}

int print_query(const Context& context, postgres::Connection& connection, std::string_view sql,
                std::initializer_list<postgres::Param> params) {
  if (context.json) {
    return print_json(connection,
                      fmt::format("select coalesce(json_agg(t), '[]')::text from ({}) t", sql),
                      params);
  }
  const auto rows = connection.query(sql, params, Deadline::after(kTimeout), {});
  if (!rows) return failed(rows.error());
  print_table(*rows);
  return kOk;
}

}  // namespace relay::cli
