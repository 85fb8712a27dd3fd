// Command rclone is rclone with what the tests use of it, and no more: `rclone serve s3 :memory:`.
// `make s3-server` builds it.
package main

import (
	_ "github.com/rclone/rclone/backend/memory"
	"github.com/rclone/rclone/cmd"
	_ "github.com/rclone/rclone/cmd/serve/s3"
)

func main() { cmd.Main() }
