// Answers ARP requests the way upstream's speaker does: github.com/mdlayher/arp, one frame read, parsed, looked up and answered at a
// time. l2-bench.sh compares the driver with it.
//
//	l2-bench-go INTERFACE FIRST-ADDRESS COUNT
package main

import (
	"log"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"

	"github.com/mdlayher/arp"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: l2-bench-go INTERFACE FIRST-ADDRESS COUNT")
	}
	device, err := net.InterfaceByName(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	first, err := netip.ParseAddr(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	count, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	// Other goroutines change the addresses of a speaker, so they are behind a lock.
	var lock sync.RWMutex
	ours := make(map[netip.Addr]struct{}, count)
	for ip := first; len(ours) < count; ip = ip.Next() {
		ours[ip] = struct{}{}
	}
	conn, err := arp.Dial(device)
	if err != nil {
		log.Fatal(err)
	}
	for {
		question, _, err := conn.Read()
		if err != nil {
			log.Fatal(err)
		}
		if question.Operation != arp.OperationRequest {
			continue
		}
		lock.RLock()
		_, found := ours[question.TargetIP]
		lock.RUnlock()
		if !found {
			continue
		}
		if err := conn.Reply(question, device.HardwareAddr, question.TargetIP); err != nil {
			log.Fatal(err)
		}
	}
}
