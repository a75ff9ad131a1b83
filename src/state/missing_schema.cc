#include "state/missing_schema.h"

namespace relay::state {

Error explain_missing_schema(Error error) {
  if (error.code == "3F000" || error.code == "42P01" || error.code == "42883" ||
      error.code == "42703") {
    error.remedy = "run `pgtrickle-relay init` against this database";
  }
  return error;
}

}  // namespace relay::state
