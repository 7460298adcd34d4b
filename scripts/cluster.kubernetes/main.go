// One program that is kube-apiserver or kubelet, as its first argument says.
//
// Kubernetes is released as containers and archives, not through a package registry, and
// `go install` refuses it because of the replace lines in its go.mod. Those lines are repeated
// in ours. One program for both halves the time of the build and the room on the disk.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	name := ""
	if len(os.Args) > 1 {
		name = os.Args[1]
		os.Args = append([]string{name}, os.Args[2:]...)
	}
	var command *cobra.Command
	switch name {
	case "kube-apiserver":
		command = apiserver.NewAPIServerCommand()
	case "kubelet":
		command = kubelet.NewKubeletCommand(context.Background())
	default:
		fmt.Fprintln(os.Stderr, "Usage: kubernetes kube-apiserver|kubelet [argument...]")
		os.Exit(2)
	}
	os.Exit(cli.Run(command))
}
